package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"weft.mesh/weft/spiffe"
)

// Bounds of join tokens.
const (
	TokenTTL    = 10 * time.Minute
	MaxTokenTTL = 24 * time.Hour
	maxTokens   = 100_000
)

// ErrToken is all that a caller with a bad token learns.
var ErrToken = errors.New("join token is unknown, used or expired; make a new one")

// Tokens are secrets that stand for one identity until a workload has its first
// certificate. The first use binds a token to the key of that request: until it expires
// the same key may ask again, because an answer may be lost or come too late, and no
// other may. Only the SHA-256 of a token is kept, in memory and in a file (0600), so
// that pods that are being started outlive a restart of the control plane.
type Tokens struct {
	file string
	now  func() time.Time

	mu  sync.Mutex       // protects all
	all map[string]token // by hex of SHA-256
}

type token struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
	Key     string    `json:"key,omitempty"` // hex of the SHA-256 of the public key that used it
}

// OpenTokens loads the file; a missing one is empty, "" keeps tokens in memory only.
func OpenTokens(file string) (*Tokens, error) {
	t := &Tokens{file: file, now: time.Now, all: map[string]token{}}
	if file == "" {
		return t, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t.all)
	}
	if err != nil {
		return nil, fmt.Errorf("join tokens: %s: %w (remove the file to forget all tokens)", file, err)
	}
	return t, nil
}

// Issue makes a token for id. ttl 0 means TokenTTL.
func (t *Tokens) Issue(id spiffe.ID, ttl time.Duration) (string, time.Time, error) {
	switch {
	case ttl == 0:
		ttl = TokenTTL
	case ttl < 0 || ttl > MaxTokenTTL:
		return "", time.Time{}, fmt.Errorf("join token: ttl %s: want more than 0 and at most %s", ttl, MaxTokenTTL)
	}
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return "", time.Time{}, err
	}
	s := base64.RawURLEncoding.EncodeToString(secret[:])
	exp := t.now().Add(ttl)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire()
	if len(t.all) >= maxTokens {
		return "", time.Time{}, fmt.Errorf("join token: %d tokens that have not expired, the limit", len(t.all))
	}
	t.all[hash(s)] = token{ID: id.String(), Expires: exp}
	return s, exp, t.save()
}

// Redeem returns the identity that a token stands for, to the first public key (SubjectPublicKeyInfo) that asks.
func (t *Tokens) Redeem(s string, publicKey []byte) (spiffe.ID, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, key := hash(s), hash(string(publicKey))
	tok, ok := t.all[h]
	// The map look-up compares hashes of a secret with 256 bits, which leaks
	// nothing usable; the explicit compare keeps that true if the key changes.
	if !ok || subtle.ConstantTimeCompare([]byte(h), []byte(hash(s))) != 1 || t.now().After(tok.Expires) {
		return spiffe.ID{}, ErrToken
	}
	switch tok.Key {
	case key:
	case "":
		tok.Key = key
		t.all[h] = tok
		if err := t.save(); err != nil {
			return spiffe.ID{}, err // fail closed: a token whose use is not on disk could be used twice
		}
	default:
		return spiffe.ID{}, ErrToken
	}
	return spiffe.Parse(tok.ID)
}

func (t *Tokens) expire() {
	now := t.now()
	for h, tok := range t.all {
		if now.After(tok.Expires) {
			delete(t.all, h)
		}
	}
}

func (t *Tokens) save() error {
	if t.file == "" {
		return nil
	}
	b, err := json.Marshal(t.all)
	if err != nil {
		return err
	}
	if err := writeFile(t.file, b); err != nil {
		return fmt.Errorf("join tokens: %w", err)
	}
	return nil
}

func hash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}
