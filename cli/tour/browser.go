package tour

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Bounds of a page: bytes, and the time that one may take.
const (
	maxPage  = 1 << 20
	pageWait = 30 * time.Second
)

// Browser loads Bookinfo's page as people do: each user has cookies and connections of their own, and is signed in.
// Safe for concurrent use. Base must be set before the first load.
type Browser struct {
	Base string // URL of the ingress

	mu       sync.Mutex // protects sessions
	sessions map[string]*http.Client
}

// Load is [Mesh.Load]: the page as a user sees it ("" is nobody).
func (b *Browser) Load(ctx context.Context, user string) (*Page, error) {
	c, err := b.session(ctx, user)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.Base+"/productpage", nil)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("load the page: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("load the page: %w", err)
	}
	return &Page{Status: resp.StatusCode, Body: string(text), Reviews: resp.Header.Get("Bookinfo-Reviews-Version"), Took: time.Since(start)}, nil
}

// session is one user's. Two first loads of one user at once may both sign in; the later session is kept.
func (b *Browser) session(ctx context.Context, user string) (*http.Client, error) {
	b.mu.Lock()
	c, ok := b.sessions[user]
	b.mu.Unlock()
	if ok {
		return c, nil
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	c = &http.Client{Jar: jar, Timeout: pageWait}
	if user != "" {
		if err := b.signIn(ctx, c, user); err != nil {
			return nil, fmt.Errorf("sign in as %s: %w", user, err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions == nil {
		b.sessions = map[string]*http.Client{}
	}
	b.sessions[user] = c
	return c, nil
}

// signIn leaves the session's cookie in the client's jar.
func (b *Browser) signIn(ctx context.Context, c *http.Client, user string) error {
	form := url.Values{"username": {user}, "passwd": {"demo"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.Base+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("content-type", "application/x-www-form-urlencoded")
	stay := *c
	stay.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := stay.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= 400 {
		return fmt.Errorf("answer %d", resp.StatusCode)
	}
	return nil
}
