package serve

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
)

var quiet = slog.New(slog.DiscardHandler)

// TestRunFinishesRequestsUnderWay stops a server while a request runs.
func TestRunFinishesRequestsUnderWay(t *testing.T) {
	tests := []struct {
		name    string
		takes   time.Duration
		stopped time.Duration // when Run returns, after the stop
		wantErr string
	}{
		{"a slow request is finished", 10 * time.Second, 9 * time.Second, ""},
		{"one that takes too long is cut", time.Hour, shutdownTimeout, "requests were cut after 25s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New(memnet.Link{})
				l, err := n.Listen("10.0.0.1:80")
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(tt.takes):
					case <-r.Context().Done():
					}
					_, _ = io.WriteString(w, "done")
				})
				go func() { ended <- Run(ctx, l, h, quiet) }()
				answer := make(chan string, 1)
				client := &http.Client{Transport: &http.Transport{DialContext: n.DialContext, DisableKeepAlives: true}}
				go func() {
					resp, err := client.Get("http://10.0.0.1/")
					if err != nil {
						answer <- err.Error()
						return
					}
					defer resp.Body.Close()
					body, _ := io.ReadAll(resp.Body)
					answer <- string(body)
				}()
				time.Sleep(time.Second)
				start := time.Now()
				stop()
				err = <-ended
				// http.Server looks for the last request every half second.
				if got := time.Since(start); got < tt.stopped || got > tt.stopped+time.Second {
					t.Errorf("Run returned %v after the stop, want %v", got, tt.stopped)
				}
				if tt.wantErr == "" && (err != nil || <-answer != "done") {
					t.Errorf("Run = %v, want nil and the request answered", err)
				}
				if tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
					t.Errorf("Run = %v, want %q", err, tt.wantErr)
				}
				if _, err := n.Dial("10.0.0.1:80"); err == nil {
					t.Error("still accepts connections")
				}
			})
		})
	}
}

func TestFlakyFailsAShareOfTheRequests(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for _, tt := range []struct{ percent, failures, inARow int }{{0, 0, 0}, {1, 10, 1}, {25, 250, 1}, {50, 500, 1}, {67, 670, 3}, {100, 1000, 1000}} {
		h := Flaky(tt.percent, ok)
		failures, row, longest := 0, 0, 0
		for range 1000 {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			switch w.Code {
			case http.StatusServiceUnavailable:
				failures++
				row++
				longest = max(longest, row)
			case http.StatusNoContent:
				row = 0
			default:
				t.Fatalf("status %d", w.Code)
			}
		}
		if failures != tt.failures || longest > tt.inARow {
			t.Errorf("%d %%: %d of 1000 failed, %d in a row; want %d and at most %d", tt.percent, failures, longest, tt.failures, tt.inARow)
		}
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct{ host, port, domain, want string }{
		{"details", "9080", "", "http://details:9080"},
		{"details", "80", "default.svc.cluster.local", "http://details.default.svc.cluster.local:80"},
		{"details", "80", ".example.org.", "http://details.example.org:80"},
		{"::1", "80", "", "http://[::1]:80"},
	} {
		if got := Address(tt.host, tt.port, tt.domain); got != tt.want {
			t.Errorf("Address(%q, %q, %q) = %q, want %q", tt.host, tt.port, tt.domain, got, tt.want)
		}
	}
}
