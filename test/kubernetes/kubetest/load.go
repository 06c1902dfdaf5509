package kubetest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Load asks a URL at a fixed rate, whatever the answers take, as many
// independent clients do. Connections are kept and used again, which is what a
// restart of a server must cope with.
type Load struct {
	URL  string
	Host string        // header; default that of the URL
	Rate int           // requests per second
	Wait time.Duration // for one answer; default 10 s
	// Good judges an answer; default: status 200.
	Good func(status int, body string) bool
}

// Result is what became of all requests that were sent.
type Result struct {
	Sent, Good int
	Bad        map[string]int // by what went wrong
	FirstBad   time.Time
	times      []time.Duration
}

// Quantile of the answers' times, 0 to 1.
func (r *Result) Quantile(q float64) time.Duration {
	if len(r.times) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(r.times))
	return s[int(q*float64(len(s)-1))]
}

func (r *Result) String() string {
	out := fmt.Sprintf("%d requests, %d good, p50 %s, p99 %s", r.Sent, r.Good, r.Quantile(0.5).Round(time.Millisecond/10), r.Quantile(0.99).Round(time.Millisecond/10))
	for why, n := range r.Bad {
		out += fmt.Sprintf("\n  %d × %s", n, why)
	}
	if len(r.Bad) > 0 {
		out += "\n  the first at " + r.FirstBad.Format("15:04:05.000")
	}
	return out
}

// Lossless fails the test if a request was lost, or if fewer were sent than the rate and the time allow
// (half, on a busy machine): a load that was not there proves nothing.
func (r *Result) Lossless(t testing.TB, rate int, during time.Duration) {
	t.Helper()
	t.Logf("%s", r)
	if len(r.Bad) > 0 {
		t.Errorf("%d of %d requests were lost", r.Sent-r.Good, r.Sent)
	}
	if want := int(during.Seconds() * float64(rate) / 2); r.Sent < want {
		t.Errorf("only %d requests in %s: the machine is too busy for a rate of %d/s", r.Sent, during, rate)
	}
}

// atOnce bounds the requests under way: beyond it the load waits, and is counted as what it is.
const atOnce = 500

// Start begins, and returns the function that ends it: no new requests, wait for those under way.
func (l Load) Start(t testing.TB) (stop func() *Result) {
	ctx, cancel := context.WithCancel(t.Context())
	client := &http.Client{
		Timeout:       or(l.Wait, 10*time.Second),
		Transport:     &http.Transport{MaxIdleConnsPerHost: atOnce, MaxConnsPerHost: atOnce},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if l.Good == nil {
		l.Good = func(status int, _ string) bool { return status == http.StatusOK }
	}
	res := &Result{Bad: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	one := func() {
		defer func() { <-slots }()
		start := time.Now()
		why := l.ask(client)
		took := time.Since(start)
		mu.Lock()
		defer mu.Unlock()
		res.Sent++
		res.times = append(res.times, took)
		if why == "" {
			res.Good++
			return
		}
		if len(res.Bad) == 0 {
			res.FirstBad = start
		}
		res.Bad[why]++
	}
	wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(l.Rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				slots <- struct{}{}
				wg.Go(one)
			}
		}
	})
	var once sync.Once
	end := func() *Result {
		once.Do(func() {
			cancel()
			wg.Wait()
			client.CloseIdleConnections()
		})
		return res
	}
	t.Cleanup(func() { end() })
	return end
}

// ask sends one request and says what was wrong with the answer. Its context
// is not that of the load: what was sent before the end is counted.
func (l Load) ask(client *http.Client) string {
	req, err := http.NewRequest(http.MethodGet, l.URL, nil)
	if err != nil {
		return err.Error()
	}
	if l.Host != "" {
		req.Host = l.Host
	}
	resp, err := client.Do(req)
	if err != nil {
		return errorClass(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "body: " + errorClass(err)
	}
	if !l.Good(resp.StatusCode, string(body)) {
		return fmt.Sprintf("%s: %.200s", resp.Status, strings.TrimSpace(string(body)))
	}
	return ""
}

// errorClass is an error without the ports that make each one different.
func errorClass(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "->"); i >= 0 {
		text = "…" + text[i:]
	}
	return text
}

func or(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
