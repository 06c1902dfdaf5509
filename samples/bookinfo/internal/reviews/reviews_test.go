package reviews

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/samples/bookinfo/internal/call"
)

func plain(h http.Handler) http.Handler { return h }

// service returns a version of reviews whose ratings service is rate.
func service(t *testing.T, version string, rate http.HandlerFunc) http.Handler {
	t.Helper()
	n := memnet.New(memnet.Link{})
	n.SetHost("ratings", netip.MustParseAddr("10.0.0.1"))
	l, err := n.Listen("10.0.0.1:9080")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: rate}
	go func() { _ = srv.Serve(l) }()
	client := call.NewClient(n.DialContext)
	t.Cleanup(func() { client.Close(); _ = srv.Close() })
	s, err := New(Config{Version: version, Pod: "pod-1", Cluster: "null", Ratings: "http://ratings:9080", Client: client})
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler(plain)
}

func goodRatings(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`)
}

func get(t *testing.T, h http.Handler, path string, headers http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	if headers != nil {
		r.Header = headers
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestVersionsShowTheirStars(t *testing.T) {
	failing := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	partial := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"id":0,"ratings":{"Reviewer2":1}}`)
	}
	missing := &Rating{Error: Unavailable}
	tests := []struct {
		name, version string
		ratings       http.HandlerFunc
		want          []*Rating
	}{
		{"v1 does not ask for stars", "v1", failing, []*Rating{nil, nil}},
		{"v2 has black stars", "v2", goodRatings, []*Rating{{Stars: 5, Color: "black"}, {Stars: 4, Color: "black"}}},
		{"v3 has red stars", "v3", goodRatings, []*Rating{{Stars: 5, Color: "red"}, {Stars: 4, Color: "red"}}},
		{"a suffix is only a name", "v2-flaky", goodRatings, []*Rating{{Stars: 5, Color: "black"}, {Stars: 4, Color: "black"}}},
		{"v2 says that there are no ratings", "v2", failing, []*Rating{missing, missing}},
		{"a reviewer without a rating", "v3", partial, []*Rating{nil, {Stars: 1, Color: "red"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := get(t, service(t, tt.version, tt.ratings), "/reviews/0", nil)
				var got Reviews
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
					t.Fatalf("%d %s: %v", w.Code, w.Body, err)
				}
				if got.ID != "0" || got.Pod != "pod-1" || got.Cluster != "null" || w.Header().Get(VersionHeader) != tt.version {
					t.Errorf("answer %+v of version %q", got, w.Header().Get(VersionHeader))
				}
				var ratings []*Rating
				for _, r := range got.Reviews {
					ratings = append(ratings, r.Rating)
				}
				if d := cmp.Diff(tt.want, ratings); d != "" {
					t.Errorf("ratings (-want +got):\n%s", d)
				}
			})
		})
	}
}

func TestTheJSONHasTheDocumentedShape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := get(t, service(t, "v2", goodRatings), "/reviews/7", nil).Body.String()
		for _, part := range []string{`{"id":"7","podname":"pod-1","clustername":"null","reviews":[{"reviewer":"Reviewer1","text":"`, `"rating":{"stars":5,"color":"black"}}`} {
			if !strings.Contains(body, part) {
				t.Errorf("body %s\nhas no %s", body, part)
			}
		}
		if body := get(t, service(t, "v1", goodRatings), "/reviews/7", nil).Body.String(); strings.Contains(body, "rating") {
			t.Errorf("v1 mentions ratings: %s", body)
		}
	})
}

// TestWaitingForRatings has the times that the fault injection task is about.
func TestWaitingForRatings(t *testing.T) {
	for _, tt := range []struct {
		version string
		slow    time.Duration
		want    time.Duration
		error   string
	}{
		{"v2", 7 * time.Second, 7 * time.Second, ""},
		{"v2", time.Minute, 10 * time.Second, Unavailable},
		{"v3", 2 * time.Second, 2 * time.Second, ""},
		{"v3", 7 * time.Second, 2500 * time.Millisecond, Unavailable},
	} {
		t.Run(tt.version+" with ratings that take "+tt.slow.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := service(t, tt.version, func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(tt.slow):
						goodRatings(w, r)
					case <-r.Context().Done():
					}
				})
				start := time.Now()
				var got Reviews
				if err := json.Unmarshal(get(t, h, "/reviews/0", nil).Body.Bytes(), &got); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d != tt.want {
					t.Errorf("answered after %v, want %v", d, tt.want)
				}
				if e := got.Reviews[0].Rating.Error; e != tt.error {
					t.Errorf("error %q, want %q", e, tt.error)
				}
			})
		})
	}
}

func TestTheTraceGoesOnToRatings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got http.Header
		h := service(t, "v3", func(w http.ResponseWriter, r *http.Request) { got = r.Header; goodRatings(w, r) })
		in := http.Header{"X-Request-Id": {"id-1"}, "Traceparent": {"00-1-2-01"}, "End-User": {"jason"}, "User-Agent": {"test"}, "X-Secret": {"no"}}
		get(t, h, "/reviews/0", in)
		want := http.Header{"X-Request-Id": {"id-1"}, "Traceparent": {"00-1-2-01"}, "End-User": {"jason"}, "User-Agent": {"test"}}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("headers at ratings (-want +got):\n%s", d)
		}
	})
}

func TestBadRequestsAndVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := service(t, "v1", goodRatings)
		if w := get(t, h, "/reviews/x", nil); w.Code != 400 {
			t.Errorf("an id that is no number: status %d, want 400", w.Code)
		}
		if w := get(t, h, "/health", nil); w.Code != 200 || w.Body.String() != `{"status":"Reviews is healthy"}` {
			t.Errorf("health: %d %s", w.Code, w.Body)
		}
		if _, err := New(Config{Version: "v4"}); err == nil || !strings.Contains(err.Error(), `version "v4": want v1, v2 or v3`) {
			t.Errorf("version v4: error %v", err)
		}
	})
}
