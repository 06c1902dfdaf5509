// Package load asks a URL at a fixed rate, whatever the answers take, as many
// independent clients do, and counts every answer. Connections are kept and
// used again, which is what a restart of a server must cope with. The schedule
// slips while so many requests wait that more of them would only measure how
// long the queue of a machine is that has too few processors for the rate.
//
// It is in the tests themselves ([Load.Start], kubetest.Load) and in the test
// application, for traffic between pods.
package load

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Load is what to ask.
type Load struct {
	URL  string
	Host string        // header; default that of the URL
	Rate int           // requests per second
	Wait time.Duration // for one answer; default 10 s
	// AtOnce bounds the requests under way, default 64. A load that goes on while answers do not come, as behind a network
	// that is cut, wants rate × Wait.
	AtOnce int
	// Wrong says what is wrong with an answer with status 200, "" for nothing; default: nothing ever.
	Wrong func(body string) string
}

// Result is what became of all requests that were sent.
type Result struct {
	Sent, Good int
	Bad        map[string]int // by what went wrong
	// When the first and the last request were sent that went wrong.
	FirstBad, LastBad time.Time
	P50, P99          time.Duration // of all answers
}

func (r *Result) String() string {
	out := fmt.Sprintf("%d requests, %d good, p50 %s, p99 %s", r.Sent, r.Good, r.P50.Round(time.Millisecond/10), r.P99.Round(time.Millisecond/10))
	for _, why := range slices.Sorted(maps.Keys(r.Bad)) {
		out += fmt.Sprintf("\n  %d × %s", r.Bad[why], why)
	}
	if len(r.Bad) > 0 {
		out += "\n  sent from " + r.FirstBad.Format("15:04:05.000") + " to " + r.LastBad.Format("15:04:05.000")
	}
	return out
}

// Lost is how many got no good answer.
func (r *Result) Lost() int { return r.Sent - r.Good }

// atOnce bounds the requests under way, but for loads that say otherwise: beyond it the load waits, and is counted as what it is.
const atOnce = 64

// maxTimes bounds the answers' times that are kept for the quantiles: the newest.
const maxTimes = 1 << 16

// Running is a load that runs.
type Running struct {
	load   Load
	client *http.Client
	stop   func()

	mu    sync.Mutex // protects the following
	res   Result
	times []time.Duration
	next  int // where in times the next goes
}

// Start begins. It ends with [Running.Stop], or with the context.
func (l Load) Start(ctx context.Context) *Running {
	if l.Wait == 0 {
		l.Wait = 10 * time.Second
	}
	if l.AtOnce == 0 {
		l.AtOnce = atOnce
	}
	if l.Wrong == nil {
		l.Wrong = func(string) string { return "" }
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Running{load: l, client: &http.Client{
		Timeout:       l.Wait,
		Transport:     &http.Transport{MaxIdleConnsPerHost: l.AtOnce, MaxConnsPerHost: l.AtOnce},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	r.Reset()
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx, &wg) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		r.client.CloseIdleConnections()
	})
	return r
}

// run sends at the rate: a request that is late, because the machine was busy, is sent at once, but for the time in which
// all slots were taken.
func (r *Running) run(ctx context.Context, wg *sync.WaitGroup) {
	slots := make(chan struct{}, r.load.AtOnce)
	due := time.NewTimer(0)
	defer due.Stop()
	for start, n := time.Now(), 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
		full := time.Now()
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
			start = start.Add(time.Since(full))
		}
		wg.Go(func() {
			defer func() { <-slots }()
			r.one()
		})
		due.Reset(time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(r.load.Rate))))
	}
}

// Stop sends no new requests, waits for those under way, and returns what became of all.
func (r *Running) Stop() *Result {
	r.stop()
	return r.Result()
}

// Reset forgets what was counted.
func (r *Running) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res, r.times, r.next = Result{Bad: map[string]int{}}, nil, 0
}

// Result is what was answered until now.
func (r *Running) Result() *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.res
	out.Bad = maps.Clone(r.res.Bad)
	if s := slices.Sorted(slices.Values(r.times)); len(s) > 0 {
		out.P50, out.P99 = s[len(s)/2], s[int(0.99*float64(len(s)-1))]
	}
	return &out
}

func (r *Running) one() {
	start := time.Now()
	why := r.ask()
	took := time.Since(start)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Sent++
	if len(r.times) < maxTimes {
		r.times = append(r.times, took)
	} else {
		r.times[r.next%maxTimes] = took
		r.next++
	}
	if why == "" {
		r.res.Good++
		return
	}
	if r.res.FirstBad.IsZero() || start.Before(r.res.FirstBad) {
		r.res.FirstBad = start
	}
	if start.After(r.res.LastBad) {
		r.res.LastBad = start
	}
	r.res.Bad[why]++
}

// ask sends one request and says what was wrong with the answer. Its context
// is not that of the load: what was sent before the end is counted.
func (r *Running) ask() string {
	req, err := http.NewRequest(http.MethodGet, r.load.URL, nil)
	if err != nil {
		return err.Error()
	}
	if r.load.Host != "" {
		req.Host = r.load.Host
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return errorClass(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "body: " + errorClass(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("%s: %.200s", resp.Status, strings.TrimSpace(string(body)))
	}
	return r.load.Wrong(string(body))
}

// errorClass is an error without the ports that make each one different.
func errorClass(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "->"); i >= 0 {
		text = "…" + text[i:]
	}
	return text
}
