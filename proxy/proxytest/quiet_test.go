package proxytest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/proxy/server"
)

// askQuiet asks a proxy's status port and tells when the answer came.
func askQuiet(p *Proxy, query string) <-chan time.Time {
	answered := make(chan time.Time, 1)
	go func() {
		defer close(answered)
		resp, err := http.Get(fmt.Sprintf("http://%s/drain/quiet%s", p.Addrs()[1], query))
		if err != nil {
			return
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err == nil && strings.HasPrefix(string(b), "quiet") {
			answered <- time.Now()
		}
	}()
	return answered
}

// A program beside a sidecar stays up while others call it, on connections that there are and on new ones; what it
// calls itself does not keep it.
func TestOnlyCallsOfOthersKeepAPodUp(t *testing.T) {
	const quiet = 1500 * time.Millisecond
	status := func(s *server.Settings) { s.Status = "127.0.0.1:0" }
	p := startPair(t, pairOptions{app: StartApp(t, "app").Port, change: status})
	began := time.Now()
	callee := askQuiet(p.callee, fmt.Sprintf("?quiet=%v&most=1h", quiet))
	caller := askQuiet(p.caller, "?quiet=200ms&most=1h")
	var last time.Time
	for last.Before(began.Add(quiet / 2)) {
		last = time.Now()
		if s, _, _, err := TryCall("GET", p.port, "/"); err != nil || s != 200 {
			t.Fatal(s, err)
		}
	}
	if at, ok := <-callee; !ok || last.Sub(began) < quiet && at.Sub(last) < quiet { // a machine that stood still shows nothing
		t.Errorf("the callee's program may end %v after the last call, want %v (answer: %t)", at.Sub(last), quiet, ok)
	}
	l := startLoad(t, p.port, 2)
	Until(t, "load", func() bool { return l.total.Load() > 50 })
	if _, ok := <-askQuiet(p.caller, "?quiet=200ms&most=1h"); !ok {
		t.Error("the caller's program is kept by what it calls")
	}
	if _, ok := <-caller; !ok {
		t.Error("the caller's program was kept by what it called")
	}
}
