package productpage

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const (
	cookieName      = "session"
	sessionLifetime = 12 * time.Hour
)

// userName is what a user may be called: the name becomes a header's value.
var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// sessions signs and checks the session cookie. The user's name is in the cookie,
// signed; nothing is stored. The key is made at start, so a restart signs
// everybody out.
type sessions struct {
	key [32]byte // set at creation
}

func newSessions() *sessions {
	s := &sessions{}
	_, _ = rand.Read(s.key[:]) // never fails: it ends the program instead
	return s
}

// cookie returns the cookie for a signed-in user. secure: the browser came over HTTPS.
func (s *sessions) cookie(user string, now time.Time, secure bool) (*http.Cookie, error) {
	if !userName.MatchString(user) {
		return nil, fmt.Errorf("user name %.80q: use 1 to 64 letters, digits and . _ @ - and start with a letter or digit", user)
	}
	expires := now.Add(sessionLifetime)
	payload := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix()))
	payload = append(payload, user...)
	return &http.Cookie{
		Name:     cookieName,
		Value:    encode(payload) + "." + encode(s.sign(payload)),
		Path:     "/",
		Expires:  expires,
		HttpOnly: true,
		Secure:   secure,
		SameSite: http.SameSiteLaxMode,
	}, nil
}

// user returns who is signed in; empty means nobody, or a cookie that is not ours or has expired.
func (s *sessions) user(r *http.Request, now time.Time) string {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	data, signature, _ := strings.Cut(c.Value, ".")
	payload, err1 := base64.RawURLEncoding.DecodeString(data)
	mac, err2 := base64.RawURLEncoding.DecodeString(signature)
	if err1 != nil || err2 != nil || !hmac.Equal(mac, s.sign(payload)) || len(payload) < 8 {
		return ""
	}
	if now.Unix() >= int64(binary.BigEndian.Uint64(payload)) {
		return ""
	}
	return string(payload[8:])
}

func (s *sessions) sign(payload []byte) []byte {
	h := hmac.New(sha256.New, s.key[:])
	h.Write(payload)
	return h.Sum(nil)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// endedCookie removes the session cookie.
func endedCookie() *http.Cookie {
	return &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}
