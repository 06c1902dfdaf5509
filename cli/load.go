package cli

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// load is a gentle stream of page loads on an open schedule.
type load struct {
	url  string
	rate int
	http *http.Client

	mu      sync.Mutex // protects the following
	total   int
	failed  int
	lastErr string
	recent  []time.Duration // of the last loads, a ring
	next    int
}

const (
	loadRecent   = 200
	loadInFlight = 64 // more than that at once is counted as failed: the mesh does not keep up
)

func newLoad(url string, rate int) *load {
	return &load{url: url, rate: rate, http: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: loadInFlight}}}
}

// run loads until ctx ends, and waits for what is in flight.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, loadInFlight)
	period := time.Second / time.Duration(l.rate)
	for {
		// A little jitter looks like people, not like a metronome.
		wait := period/2 + time.Duration(rand.Int64N(int64(period)))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() { defer func() { <-slots }(); l.one(ctx) })
		default:
			l.record(0, "too many loads in flight")
		}
	}
}

func (l *load) one(ctx context.Context) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		l.record(0, err.Error())
		return
	}
	start := time.Now()
	resp, err := l.http.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			l.record(0, err.Error())
		}
		return
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.record(0, err.Error())
	case resp.StatusCode != http.StatusOK:
		l.record(time.Since(start), resp.Status)
	default:
		l.record(time.Since(start), "")
	}
}

func (l *load) record(d time.Duration, failure string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if failure != "" {
		l.failed++
		l.lastErr = failure
		return
	}
	if len(l.recent) < loadRecent {
		l.recent = append(l.recent, d)
		return
	}
	l.recent[l.next] = d
	l.next = (l.next + 1) % loadRecent
}

// loadStats is what a load came to so far.
type loadStats struct {
	total, failed int
	lastErr       string
	p50, p99      time.Duration
}

func (l *load) stats() loadStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := loadStats{total: l.total, failed: l.failed, lastErr: l.lastErr}
	if n := len(l.recent); n > 0 {
		sorted := slices.Sorted(slices.Values(l.recent))
		s.p50, s.p99 = sorted[n/2], sorted[min(n-1, n*99/100)]
	}
	return s
}
