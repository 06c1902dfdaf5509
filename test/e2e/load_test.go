package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// loader sends requests on a fixed schedule whatever the answers do (open
// loop), and checks every answer. On a machine that cannot keep up the
// schedule slips once maxWaiting requests wait: more of them would only
// measure how long a queue the machine can hold.
type loader struct {
	url    string
	rate   int
	want   string // in the body
	client *http.Client

	mu       sync.Mutex // protects the following
	sent, ok int
	failures map[string]int
	slowest  time.Duration
}

const (
	maxWaiting = 64
	leastShare = 20 // a test whose load was less than this part of what it asked for has shown nothing
)

func newLoader(url string, rate int, want string) *loader {
	return &loader{
		url: url, rate: rate, want: want, failures: map[string]int{},
		client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxConnsPerHost: 256}},
	}
}

// run sends until ctx ends and waits for all answers.
func (l *loader) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	waiting := make(chan struct{}, maxWaiting)
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * float64(l.rate)); sent < due; sent++ {
			if len(waiting) == maxWaiting {
				start = time.Now().Add(-time.Duration(sent) * time.Second / time.Duration(l.rate)) // the next one is due now
				break
			}
			waiting <- struct{}{}
			wg.Go(func() {
				defer func() { <-waiting }()
				l.one()
			})
		}
	}
}

func (l *loader) one() {
	start := time.Now()
	why := l.try()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	l.slowest = max(l.slowest, time.Since(start))
	if why == "" {
		l.ok++
		return
	}
	l.failures[why]++
}

func (l *loader) try() string {
	resp, err := l.client.Get(l.url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "body: " + err.Error()
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("status %d: %.100s", resp.StatusCode, b)
	}
	if !strings.Contains(string(b), l.want) {
		return fmt.Sprintf("body without %q: %.100s", l.want, b)
	}
	return ""
}

// underLoad runs change while the load goes on, for at least the given time,
// and fails the test if one request is lost.
func underLoad(t *testing.T, l *loader, atLeast time.Duration, change func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { l.run(ctx) })
	start := time.Now()
	func() {
		defer func() {
			if rest := atLeast - time.Since(start); rest > 0 && !t.Failed() {
				time.Sleep(rest)
			}
			cancel()
			wg.Wait()
		}()
		change()
	}()
	l.report(t, time.Since(start))
}

func (l *loader) report(t *testing.T, took time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d requests in %.1f s (%.0f/s), %d good, slowest %s", l.sent, took.Seconds(), float64(l.sent)/took.Seconds(), l.ok, l.slowest.Round(time.Millisecond))
	if l.ok != l.sent || l.sent == 0 {
		t.Errorf("%d of %d requests were lost: %v", l.sent-l.ok, l.sent, l.failures)
	}
	if rate := float64(l.sent) / took.Seconds(); rate < float64(l.rate)/leastShare {
		t.Errorf("%.0f requests/s of %d: this machine is too busy for the test", rate, l.rate)
	}
}
