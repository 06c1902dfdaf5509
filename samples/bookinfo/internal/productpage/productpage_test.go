package productpage

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type wraps = map[string]func(http.Handler) http.Handler

func TestThePage(t *testing.T) {
	black, red := `aria-label="5 of 5 stars, black"`, `aria-label="4 of 5 stars, red"`
	tests := []struct {
		name, version string
		wrap          wraps
		takes         time.Duration
		want          []string // parts of the page; with ! not
	}{
		{"v1 has no stars", "v1", nil, 0, []string{"<h1", "The Comedy of Errors", "William Shakespeare", "123-1234567890", "Reviewer1", "reviews-pod", "productpage-pod", `<em class="version">v1</em>`, "!aria-label=\"5 of 5"}},
		{"v2 has black stars", "v2", nil, 0, []string{black, `<em class="version black">v2</em>`, "<strong>4.5</strong>"}},
		{"v3 has red stars", "v3", nil, 0, []string{red, `<em class="version red">v3</em>`}},
		{"details fail", "v2", wraps{"details": failing(9, 500)}, 0, []string{DetailsUnavailable, black, "!PublisherA"}},
		{"details are slow", "v2", wraps{"details": slow(time.Minute)}, 3 * time.Second, []string{DetailsUnavailable, black}},
		{"reviews fail once", "v2", wraps{"reviews": failing(1, 503)}, 0, []string{black, "!Sorry"}},
		{"reviews fail twice", "v2", wraps{"reviews": failing(2, 503)}, 0, []string{ReviewsUnavailable, "PublisherA", "!Reviewer1"}},
		{"ratings fail", "v2", wraps{"ratings": failing(1, 500)}, 0, []string{"Reviewer1", "Ratings service is currently unavailable", "!" + black}},
		{"ratings take 7 s: the mistake in v2 shows", "v2", wraps{"ratings": slow(7 * time.Second)}, 6 * time.Second, []string{ReviewsUnavailable, "!Reviewer1"}},
		{"ratings take 7 s: v3 has the cure", "v3", wraps{"ratings": slow(7 * time.Second)}, 2500 * time.Millisecond, []string{"Reviewer1", "Ratings service is currently unavailable"}},
		{"ratings take 2 s", "v2", wraps{"ratings": slow(2 * time.Second)}, 2 * time.Second, []string{black}},
		{"everything hangs", "v2", wraps{"details": slow(time.Hour), "reviews": slow(time.Hour)}, 6 * time.Second, []string{"<h1", DetailsUnavailable, ReviewsUnavailable}},
	}
	for _, tt := range tests {
		t.Run(tt.name, with(tt.version, tt.wrap, func(t *testing.T, a *app) {
			start := time.Now()
			got := a.get("/productpage", nil)
			if d := time.Since(start); d != tt.takes {
				t.Errorf("took %v, want %v", d, tt.takes)
			}
			if got.StatusCode != 200 || got.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("status %d, type %q", got.StatusCode, got.Header.Get("Content-Type"))
			}
			wantParts(t, got.body, tt.want...)
			wantVersion := tt.version
			if slices.Contains(tt.want, ReviewsUnavailable) {
				wantVersion = ""
			}
			if v := got.Header.Get(ReviewsVersionHeader); v != wantVersion {
				t.Errorf("header %s = %q, want %q", ReviewsVersionHeader, v, wantVersion)
			}
		}))
	}
}

func TestReviewsAreAskedTwiceAtMost(t *testing.T) {
	with("v1", wraps{"reviews": slow(time.Hour)}, func(t *testing.T, a *app) {
		a.get("/productpage", nil)
		if n := len(a.headersAt("reviews")); n != 2 {
			t.Errorf("reviews were asked %d times, want 2", n)
		}
	})(t)
}

func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	with("v2", nil, func(t *testing.T, a *app) {
		page := a.get("/", nil)
		wantParts(t, page.body, "!<script", "! style=\"", "!src=\"http", "!<style")
		csp := page.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("content security policy %q", csp)
		}
		for _, asset := range []struct{ url, kind string }{{styleURL, "text/css; charset=utf-8"}, {iconURL, "image/svg+xml"}} {
			wantParts(t, page.body, asset.url)
			got := a.get(asset.url, nil)
			if got.StatusCode != 200 || got.Header.Get("Content-Type") != asset.kind || !strings.Contains(got.Header.Get("Cache-Control"), "immutable") {
				t.Errorf("%s: status %d, headers %v", asset.url, got.StatusCode, got.Header)
			}
		}
		old := a.get("/static/bookinfo.css?v=old", nil)
		if old.StatusCode != 200 || old.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("the style that another version's page wants: status %d, Cache-Control %q", old.StatusCode, old.Header.Get("Cache-Control"))
		}
		for _, path := range []string{"/static/page.html", "/static/..%2ftemplates%2fpage.html", "/static/", "/nothing"} {
			if got := a.get(path, nil); got.StatusCode != 404 {
				t.Errorf("%s: status %d, want 404", path, got.StatusCode)
			}
		}
	})(t)
}

func TestForwardedHeaders(t *testing.T) {
	with("v2", nil, func(t *testing.T, a *app) {
		cookie := a.login(url.Values{"username": {"jason"}}, nil).Cookies()[0]
		a.get("/productpage", http.Header{
			"X-Request-Id": {"id-1"}, "X-B3-Traceid": {"1"}, "X-B3-Spanid": {"2"}, "X-B3-Parentspanid": {"3"}, "X-B3-Sampled": {"1"}, "X-B3-Flags": {"0"},
			"B3": {"1-2-1"}, "Traceparent": {"00-1-2-01"}, "Tracestate": {"a=b"}, "X-Ot-Span-Context": {"x"}, "User-Agent": {"browser"},
			"Cookie": {cookie.Name + "=" + cookie.Value}, "Authorization": {"secret"}, "X-Forwarded-For": {"192.0.2.1"}, "Accept": {"text/html"}, "End-User": {"mallory"},
		})
		want := []http.Header{{
			"X-Request-Id": {"id-1"}, "X-B3-Traceid": {"1"}, "X-B3-Spanid": {"2"}, "X-B3-Parentspanid": {"3"}, "X-B3-Sampled": {"1"}, "X-B3-Flags": {"0"},
			"B3": {"1-2-1"}, "Traceparent": {"00-1-2-01"}, "Tracestate": {"a=b"}, "X-Ot-Span-Context": {"x"}, "User-Agent": {"browser"},
			"End-User": {"jason"},
		}}
		for _, service := range []string{"details", "reviews", "ratings"} {
			if d := cmp.Diff(want, a.headersAt(service)); d != "" {
				t.Errorf("headers at %s (-want +got):\n%s", service, d)
			}
		}
	})(t)
}

func TestTheAPI(t *testing.T) {
	book := `{"id":0,"author":"William Shakespeare"`
	tests := []struct {
		name, path string
		wrap       wraps
		status     int
		want       string // start of the body
	}{
		{"products", "/api/v1/products", nil, 200, `[{"id":0,"title":"The Comedy of Errors","descriptionHtml":"`},
		{"a product's details", "/api/v1/products/0", nil, 200, book},
		{"its reviews", "/api/v1/products/0/reviews", nil, 200, `{"id":"0","podname":"reviews-pod"`},
		{"its ratings", "/api/v1/products/3/ratings", nil, 200, `{"id":3,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"an id that is no number", "/api/v1/products/x", nil, 400, `{"error":"product id \"x\"`},
		{"details fail", "/api/v1/products/0", wraps{"details": failing(1, 503)}, 503, `{"error":"` + DetailsUnavailable},
		{"reviews fail once", "/api/v1/products/0/reviews", wraps{"reviews": failing(1, 500)}, 200, `{"id":"0"`},
		{"reviews fail twice", "/api/v1/products/0/reviews", wraps{"reviews": failing(2, 403)}, 403, `{"error":"` + ReviewsUnavailable},
		{"ratings have no answer", "/api/v1/products/0/ratings", wraps{"ratings": slow(time.Hour)}, 500, `{"error":"` + RatingsUnavailable},
		{"health", "/health", nil, 200, `{"status":"Product page is healthy"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, with("v1", tt.wrap, func(t *testing.T, a *app) {
			got := a.get(tt.path, nil)
			if got.StatusCode != tt.status || !strings.HasPrefix(got.body, tt.want) || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %s %s\nwant %d %s…", got.StatusCode, got.Header.Get("Content-Type"), got.body, tt.status, tt.want)
			}
		}))
	}
}
