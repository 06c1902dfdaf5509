package productpage

import (
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/samples/bookinfo/internal/call"
	"weft.mesh/weft/samples/bookinfo/internal/details"
	"weft.mesh/weft/samples/bookinfo/internal/ratings"
	"weft.mesh/weft/samples/bookinfo/internal/reviews"
)

// app is the whole application on a network in memory.
type app struct {
	t      *testing.T
	net    *memnet.Network
	client *http.Client
	wrap   map[string]func(http.Handler) http.Handler

	mu   sync.Mutex
	seen map[string][]http.Header // mu; by service: the headers that requests came with
}

var addresses = map[string]string{"productpage": "10.0.0.1", "details": "10.0.0.2", "reviews": "10.0.0.3", "ratings": "10.0.0.4"}

// start runs the application with a version of reviews. wrap changes services, by name.
func start(t *testing.T, version string, wrap map[string]func(http.Handler) http.Handler) *app {
	t.Helper()
	a := &app{t: t, net: memnet.New(memnet.Link{}), seen: map[string][]http.Header{}, wrap: wrap}
	for name, ip := range addresses {
		a.net.SetHost(name, netip.MustParseAddr(ip))
	}
	client := call.NewClient(a.net.DialContext)
	rev, err := reviews.New(reviews.Config{Version: version, Pod: "reviews-pod", Cluster: "null", Ratings: "http://ratings:9080", Client: client})
	if err != nil {
		t.Fatal(err)
	}
	plain := func(h http.Handler) http.Handler { return h }
	a.run("details", details.Handler())
	a.run("ratings", ratings.New().Handler(plain))
	a.run("reviews", rev.Handler(plain))
	a.run("productpage", New(Config{
		Details: "http://details:9080", Reviews: "http://reviews:9080", Ratings: "http://ratings:9080",
		Client: client, Pod: "productpage-pod", Log: slog.New(slog.DiscardHandler),
	}).Handler())
	a.client = &http.Client{
		Transport:     &http.Transport{DialContext: a.net.DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() { a.client.CloseIdleConnections(); client.Close() })
	return a
}

func (a *app) run(name string, h http.Handler) {
	a.t.Helper()
	if wrap := a.wrap[name]; wrap != nil {
		h = wrap(h)
	}
	l, err := a.net.Listen(addresses[name] + ":9080")
	if err != nil {
		a.t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.seen[name] = append(a.seen[name], r.Header)
		a.mu.Unlock()
		h.ServeHTTP(w, r)
	})}
	go func() { _ = srv.Serve(l) }()
	a.t.Cleanup(func() { _ = srv.Close() })
}

// headersAt returns the headers of the requests that a service got.
func (a *app) headersAt(service string) []http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[service]
}

// answer is an HTTP answer, read to its end.
type answer struct {
	*http.Response
	body string
}

func (a *app) do(r *http.Request) answer {
	a.t.Helper()
	resp, err := a.client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer{resp, string(body)}
}

func (a *app) get(path string, headers http.Header) answer {
	a.t.Helper()
	r, err := http.NewRequest("GET", "http://productpage:9080"+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header = headers.Clone()
	return a.do(r)
}

func (a *app) login(form url.Values, header http.Header) answer {
	a.t.Helper()
	r, err := http.NewRequest("POST", "http://productpage:9080/login", strings.NewReader(form.Encode()))
	if err != nil {
		a.t.Fatal(err)
	}
	if header != nil {
		r.Header = header.Clone()
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return a.do(r)
}

func wantParts(t *testing.T, body string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if without, not := strings.CutPrefix(p, "!"); not {
			if strings.Contains(body, without) {
				t.Errorf("the body has %q", without)
			}
		} else if !strings.Contains(body, p) {
			t.Errorf("the body has no %q", p)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

// slow makes a service take d for each request.
func slow(d time.Duration) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(d):
				h.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		})
	}
}

// failing makes a service answer the first n requests with status.
func failing(n, status int) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n--; n >= 0 {
				w.WriteHeader(status)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

// with returns a test that runs f with the application in fake time.
func with(version string, wrap map[string]func(http.Handler) http.Handler, f func(t *testing.T, a *app)) func(*testing.T) {
	return func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, start(t, version, wrap)) })
	}
}
