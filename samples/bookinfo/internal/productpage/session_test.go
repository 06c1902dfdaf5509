package productpage

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestSigningInAndOut(t *testing.T) {
	with("v1", nil, func(t *testing.T, a *app) {
		wantParts(t, a.get("/productpage", nil).body, `action="/login"`, "demonstration: every password is right", "!Sign out")

		in := a.login(url.Values{"username": {"jason"}, "passwd": {"anything"}}, nil)
		if in.StatusCode != http.StatusSeeOther || in.Header.Get("Location") != "/productpage" || len(in.Cookies()) != 1 {
			t.Fatalf("sign-in: status %d, headers %v", in.StatusCode, in.Header)
		}
		c := in.Cookies()[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure || c.Path != "/" {
			t.Errorf("cookie %v, want HttpOnly, SameSite=Lax and not Secure over plain HTTP", c)
		}
		mine := http.Header{"Cookie": {c.Name + "=" + c.Value}}
		wantParts(t, a.get("/productpage", mine).body, "Signed in as</span> <strong>jason</strong>", "Sign out", `!action="/login"`)

		time.Sleep(sessionLifetime)
		wantParts(t, a.get("/productpage", mine).body, "!Signed in as", `action="/login"`)

		out := a.get("/logout", mine)
		if out.StatusCode != http.StatusSeeOther || len(out.Cookies()) != 1 || out.Cookies()[0].MaxAge >= 0 {
			t.Errorf("sign-out: status %d, cookies %v, want the cookie removed", out.StatusCode, out.Cookies())
		}
	})(t)
}

func TestWhereSigningInLeads(t *testing.T) {
	with("v1", nil, func(t *testing.T, a *app) {
		for _, tt := range []struct{ referer, want string }{
			{"", "/productpage"},
			{"http://productpage:9080/", "/"},
			{"http://productpage:9080/productpage", "/productpage"},
			{"http://evil.example/", "/productpage"},
			{"://", "/productpage"},
		} {
			got := a.login(url.Values{"username": {"a"}}, http.Header{"Referer": {tt.referer}}).Header.Get("Location")
			if got != tt.want {
				t.Errorf("from %q to %q, want %q", tt.referer, got, tt.want)
			}
		}
		c := a.login(url.Values{"username": {"a"}}, http.Header{"X-Forwarded-Proto": {"https"}}).Cookies()[0]
		if !c.Secure {
			t.Error("the cookie is not Secure although the browser came over HTTPS")
		}
	})(t)
}

func TestUserNames(t *testing.T) {
	with("v1", nil, func(t *testing.T, a *app) {
		for name, status := range map[string]int{
			"jason": 303, "j": 303, "Jason.B_1@example-org": 303, strings.Repeat("a", 64): 303,
			"": 400, " ": 400, "a b": 400, ".a": 400, "a\r\nx: y": 400, "jäson": 400, "<b>": 400, strings.Repeat("a", 65): 400,
		} {
			got := a.login(url.Values{"username": {name}}, nil)
			if got.StatusCode != status {
				t.Errorf("user name %q: status %d, want %d", name, got.StatusCode, status)
			}
			if status == 400 && len(got.Cookies()) != 0 {
				t.Errorf("user name %q is refused and gets a cookie", name)
			}
		}
	})(t)
}

func TestOnlyOurCookiesCount(t *testing.T) {
	ours, other := newSessions(), newSessions()
	now := time.Now()
	value := func(s *sessions, user string) string {
		c, err := s.cookie(user, now, false)
		if err != nil {
			t.Fatal(err)
		}
		return c.Value
	}
	good := value(ours, "jason")
	payload, mac, _ := strings.Cut(good, ".")
	otherPayload, _, _ := strings.Cut(value(ours, "root"), ".")
	tests := []struct {
		name, value string
		at          time.Time
		want        string
	}{
		{"ours", good, now, "jason"},
		{"ours, just in time", good, now.Add(sessionLifetime - time.Second), "jason"},
		{"ours, expired", good, now.Add(sessionLifetime), ""},
		{"signed with another key", value(other, "jason"), now, ""},
		{"another name with our signature", otherPayload + "." + mac, now, ""},
		{"no signature", payload, now, ""},
		{"an empty signature", payload + ".", now, ""},
		{"a short signature", good[:len(good)-2], now, ""},
		{"nothing", "", now, ""},
		{"an empty payload, signed", "." + encode(ours.sign(nil)), now, ""},
		{"no base64", "!." + mac, now, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.AddCookie(&http.Cookie{Name: cookieName, Value: tt.value})
			if got := ours.user(r, tt.at); got != tt.want {
				t.Errorf("user %q, want %q", got, tt.want)
			}
		})
	}
	if got := ours.user(httptest.NewRequest("GET", "/", nil), now); got != "" {
		t.Errorf("user %q without a cookie", got)
	}
}
