package admin

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// askQuiet makes a request to a server whose workload gets something new each period, for a time.
func askQuiet(ctx context.Context, query string, busy time.Duration) (answer string, after time.Duration, log string) {
	var n atomic.Uint64
	var lines strings.Builder
	s := &Server{set: Settings{Arrived: n.Load, Log: slog.New(slog.NewTextHandler(&lines, nil))}, quietAsks: make(chan struct{}, maxQuietAsks)}
	began := time.Now()
	go func() {
		for time.Since(began) < busy {
			n.Add(1)
			time.Sleep(time.Second)
		}
	}()
	w := httptest.NewRecorder()
	s.quiet(w, httptest.NewRequestWithContext(ctx, "GET", "/drain/quiet"+query, nil))
	after = time.Since(began).Round(time.Second)
	time.Sleep(busy) // in a bubble: for the goroutine
	return w.Body.String(), after, lines.String()
}

func TestProgramsStayUpWhileOthersCallThem(t *testing.T) {
	for _, tt := range []struct {
		name, query string
		busy        time.Duration
		want        string
		after       time.Duration
	}{
		{"nobody calls", "?quiet=3s&most=25s", 0, "quiet for 3s", 3 * time.Second},
		{"the default is 3 s", "", 0, "quiet for 3s", 3 * time.Second},
		{"called for 10 s", "?quiet=3s&most=25s", 10 * time.Second, "quiet for 3s", 12 * time.Second},
		{"called for ever", "?quiet=3s&most=25s", time.Minute, "not quiet for 3s within 25s", 25 * time.Second},
		{"most is at least quiet", "?quiet=40s&most=25s", 0, "quiet for 40s", 40 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, after, log := askQuiet(t.Context(), tt.query, tt.busy)
				if strings.TrimSpace(answer) != tt.want || after != tt.after {
					t.Errorf("%q after %v, want %q after %v", answer, after, tt.want, tt.after)
				}
				if warned := strings.Contains(log, "still call it"); warned != strings.HasPrefix(tt.want, "not") {
					t.Errorf("log: %s", log)
				}
			})
		})
	}
}

func TestWhoLeavesWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if answer, after, _ := askQuiet(ctx, "?quiet=1m", 0); answer != "" || after != time.Second {
			t.Errorf("%q after %v", answer, after)
		}
	})
}

func TestWhatQuietRefuses(t *testing.T) {
	for query, want := range map[string]string{"?quiet=soon": `quiet "soon"`, "?quiet=-1s": `quiet "-1s"`, "?most=2h": `most "2h"`, "?most=0s": `most "0s"`} {
		if answer, _, _ := askQuiet(t.Context(), query, 0); !strings.Contains(answer, want) {
			t.Errorf("%s: %s", query, answer)
		}
	}
}

// Whoever may reach the port can take all places. A pod that ends then has the time that it has by default, not none.
func TestWithoutAPlaceTheDefaultIsWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{set: Settings{Arrived: func() uint64 { return 0 }}, quietAsks: make(chan struct{})}
		w, began := httptest.NewRecorder(), time.Now()
		if s.quiet(w, httptest.NewRequest("GET", "/drain/quiet?quiet=1h", nil)); w.Code != 503 || time.Since(began) != defaultQuiet {
			t.Errorf("status %d after %v, want 503 after %v", w.Code, time.Since(began), defaultQuiet)
		}
	})
}
