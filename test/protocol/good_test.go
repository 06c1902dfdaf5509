package protocol

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// goodRate is the good traffic beside an attack, in requests per second: half HTTP/1.1, half HTTP/2, alternating.
const goodRate = 200

// good is traffic of clients that do nothing wrong. Their connections are kept.
type good struct {
	urls    [2]string
	clients [2]*http.Client
}

func newGood(t testing.TB, r *rig) *good {
	url := fmt.Sprintf("http://127.0.0.1:%d/good", r.plain)
	h1 := &http.Transport{MaxIdleConnsPerHost: 100}
	h2 := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	t.Cleanup(func() { h1.CloseIdleConnections(); h2.CloseIdleConnections() })
	return &good{[2]string{url, url}, [2]*http.Client{{Transport: h1, Timeout: time.Minute}, {Transport: h2, Timeout: time.Minute}}}
}

// outcome of good traffic.
type outcome struct {
	p50, p99 time.Duration
	requests int
	failures []string
}

// run sends requests at their times, whether earlier ones were answered or not, until ctx ends.
// A time is from when a request should have been sent to when its body was read.
func (g *good) run(ctx context.Context) outcome {
	var mu sync.Mutex
	var o outcome
	var times []time.Duration
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / goodRate)
	defer tick.Stop()
	for i := 0; ; i++ {
		var due time.Time
		select {
		case <-ctx.Done():
			wg.Wait()
			slices.Sort(times)
			if o.requests = len(times); o.requests > 0 {
				o.p50, o.p99 = times[o.requests/2], times[o.requests*99/100]
			}
			return o
		case due = <-tick.C:
		}
		wg.Go(func() {
			err := g.one(i % 2)
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			times = append(times, took)
			if err != nil {
				o.failures = append(o.failures, err.Error())
			}
		})
	}
}

func (g *good) one(kind int) error {
	resp, err := g.clients[kind].Get(g.urls[kind])
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != 200 || string(b) != "good" {
		return fmt.Errorf("%s: %d %.100q", resp.Proto, resp.StatusCode, b)
	}
	return nil
}
