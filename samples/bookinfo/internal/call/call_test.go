package call

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/internal/memnet"
)

func TestHeadersForwardsExactlyTheTraceAndTheUser(t *testing.T) {
	in := http.Header{}
	want := http.Header{}
	for _, name := range []string{
		"X-Request-Id", "X-Ot-Span-Context",
		"X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags", "B3",
		"Traceparent", "Tracestate", "End-User", "User-Agent",
	} {
		in.Set(name, "value of "+name)
		want.Set(name, "value of "+name)
	}
	in.Add("tracestate", "second") // both values go on
	want.Add("tracestate", "second")
	for _, name := range []string{
		"Cookie", "Authorization", "X-Forwarded-For", "X-Forwarded-Client-Cert", "X-Envoy-Peer-Metadata",
		"X-Envoy-Attempt-Count", "Connection", "Content-Type", "Accept", "Host", "X-B3-Other", "Baggage",
	} {
		in.Set(name, "stays")
	}
	if d := cmp.Diff(want, Headers(in)); d != "" {
		t.Errorf("forwarded headers (-want +got):\n%s", d)
	}
}

// serveAt runs h on a new network as http://there/.
func serveAt(t *testing.T, l memnet.Link, h http.HandlerFunc) *memnet.Network {
	t.Helper()
	n := memnet.New(l)
	n.SetHost("there", netip.MustParseAddr("10.0.0.1"))
	ln, err := n.Listen("10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return n
}

func TestGetKeepsWithinItsTimeout(t *testing.T) {
	tests := []struct {
		name string
		link memnet.Link
		h    http.HandlerFunc
	}{
		{"connecting hangs", memnet.Link{Blackhole: true}, nil},
		{"no answer", memnet.Link{}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"the body stops half way", memnet.Link{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := NewClient(serveAt(t, tt.link, tt.h).DialContext)
				defer c.Close()
				start := time.Now()
				_, err := c.Get(t.Context(), "http://there/", nil, 3*time.Second)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v, want deadline exceeded", err)
				}
				if got := time.Since(start); got != 3*time.Second {
					t.Errorf("gave up after %v, want 3s", got)
				}
			})
		})
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		want       string // in the error; empty: none
	}{
		{"a good answer", `{"a":1}`, 200, ""},
		{"a bad status", `{"error":"no"}`, 503, "call http://there/: status 503"},
		{"no JSON", `<html>`, 200, "call http://there/: decode answer"},
		{"a redirect is not followed", ``, 302, "status 302"},
		{"an endless answer", strings.Repeat("x", maxBody+1), 200, "larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := NewClient(serveAt(t, memnet.Link{}, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.body)
				}).DialContext)
				defer c.Close()
				var v struct{ A int }
				a, err := c.Decode(t.Context(), "http://there/", nil, time.Second, &v)
				if tt.want == "" {
					if err != nil || v.A != 1 || a.Status != 200 {
						t.Errorf("Decode = %+v, %v; value %+v", a, err, v)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want it to contain %q", err, tt.want)
				}
			})
		})
	}
}

func TestConnectionsAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := map[string]bool{}
		c := NewClient(serveAt(t, memnet.Link{}, func(_ http.ResponseWriter, r *http.Request) { peers[r.RemoteAddr] = true }).DialContext)
		defer c.Close()
		for range 10 {
			if _, err := c.Get(t.Context(), "http://there/", nil, time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if len(peers) != 1 {
			t.Errorf("10 requests came over %d connections, want 1", len(peers))
		}
	})
}
