package protocol

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// attack is something that a client does to hurt.
type attack struct {
	name  string
	conns int // attackers at the same time
	pause time.Duration
	// run is one connection's attack: it returns in words how the proxy ended it.
	run func(r *rig) (string, error)
	// want is what all ends look like.
	want string
	// within bounds the time to the end; default 8 s.
	within time.Duration
}

const (
	attackFor     = time.Second // an attack is begun again for so long
	maxAttackRise = 3           // times, of p99
	// p99 below this is not distinguished: attackers, clients and application share the machine with the
	// proxy, and tests of other packages run at the same time.
	p99Floor = 250 * time.Millisecond
	// quietFloor is the floor where WEFT_QUIET_MACHINE is set: nothing else runs.
	quietFloor   = 30 * time.Millisecond
	maxAttackRSS = 64 << 20 // growth
	attackTries  = 3        // other load on the machine only makes times longer: the best of them counts
)

func TestAttacksDoNotHurtGoodTraffic(t *testing.T) {
	app := proxytest.StartApp(t, "app")
	app.Handle(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/good" {
			_, _ = io.WriteString(w, "good")
			return
		}
		if r.URL.Path == "/big" {
			for range 1600 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	r := startRig(t, rigOptions{app: app.Port, headersTimeout: "1s", requestTimeout: "2s", streamIdle: "2.5s", idle: "4s"})
	g := newGood(t, r)
	calm := func(d time.Duration) outcome {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		return g.run(ctx)
	}
	calm(500 * time.Millisecond) // connections, pages of the program
	base := calm(2 * time.Second)
	if len(base.failures) > 0 {
		t.Fatalf("without an attack: %q", base.failures)
	}
	floor := p99Floor
	if os.Getenv("WEFT_QUIET_MACHINE") != "" {
		floor = quietFloor
	}
	limit := max(base.p99*maxAttackRise, floor)
	goroutines, fds, rss := r.goroutines(), r.fds(), r.rss()
	t.Logf("without an attack: p50 %v, p99 %v; %d goroutines, %d KB resident", base.p50.Round(10*time.Microsecond), base.p99.Round(10*time.Microsecond), goroutines, rss>>10)
	for _, a := range append(attacksH1(), attacksH2()...) {
		t.Run(a.name, func(t *testing.T) {
			var o outcome
			for try := range attackTries {
				o = a.against(t, r, g)
				if len(o.failures) > 0 {
					t.Fatalf("%d of %d good requests failed: %.500q", len(o.failures), o.requests, o.failures)
				}
				if o.p99 <= limit {
					break
				}
				t.Logf("try %d: p99 %v", try, o.p99)
			}
			grown := r.rss() - rss
			t.Logf("good traffic: p50 %v, p99 %v; memory grew by %d KB", o.p50.Round(10*time.Microsecond), o.p99.Round(10*time.Microsecond), grown>>10)
			if o.p99 > limit {
				t.Errorf("p99 %v, want at most %v", o.p99, limit)
			}
			if grown > maxAttackRSS {
				t.Errorf("resident memory grew by %d KB", grown>>10)
			}
		})
	}
	proxytest.Until(t, "goroutines and descriptors to be given back", func() bool {
		return r.goroutines() <= goroutines+20 && r.fds() <= fds+20
	})
	t.Logf("after all: %d goroutines (%d before), %d descriptors (%d before), %d KB resident", r.goroutines(), goroutines, r.fds(), fds, r.rss()>>10)
	if after := calm(time.Second); len(after.failures) > 0 {
		t.Errorf("after the attacks: %q", after.failures)
	}
}

// against attacks while good traffic runs.
func (a *attack) against(t *testing.T, r *rig, g *good) outcome {
	within := a.within
	if within == 0 {
		within = 8 * time.Second
	}
	want := regexp.MustCompile("^(?:" + a.want + ")$")
	until := time.Now().Add(attackFor)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var ends atomic.Int64
	var once sync.Once
	for range max(a.conns, 1) {
		wg.Go(func() {
			for first := true; first || time.Now().Before(until); first = false {
				began := time.Now()
				end, err := a.run(r)
				took := time.Since(began)
				if err != nil || !want.MatchString(end) || took > within {
					once.Do(func() {
						t.Errorf("the attack ended with %q after %v (%v), want %s within %v", end, took, err, a.want, within)
					})
				}
				ends.Add(1)
				time.Sleep(max(a.pause, 20*time.Millisecond))
			}
		})
	}
	go func() { wg.Wait(); cancel() }()
	o := g.run(ctx)
	t.Logf("%d attacks by %d attackers", ends.Load(), max(a.conns, 1))
	return o
}

// h1 writes what next returns until it returns nil or the proxy closes, and says how
// the proxy ended the connection: the statuses it answered and "closed".
func h1(port int, next func(i int) []byte, pause time.Duration) (string, error) {
	c, err := dial(port)
	if err != nil {
		return "", err
	}
	defer c.Close()
	go func() {
		for i := 0; ; i++ {
			p := next(i)
			if p == nil {
				return
			}
			if _, err := c.Write(p); err != nil {
				return
			}
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}()
	b, err := io.ReadAll(io.LimitReader(c, 1<<20))
	end := ""
	for _, m := range statusLine.FindAllSubmatch(b, -1) {
		end += string(m[1]) + " "
	}
	if err != nil && !isReset(err) {
		return end, err
	}
	return end + "closed", nil
}

var statusLine = regexp.MustCompile(`(?m)^HTTP/1\.1 (\d+)`)

// once sends something once.
func once(s string) func(int) []byte {
	return func(i int) []byte {
		if i > 0 {
			return nil
		}
		return []byte(s)
	}
}

// after sends a beginning, and then something for ever.
func after(s, forever string) func(int) []byte {
	f := []byte(forever)
	return func(i int) []byte {
		if i == 0 {
			return []byte(s)
		}
		return f
	}
}

func attacksH1() []attack {
	head := "POST / HTTP/1.1\r\nHost: app\r\n"
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n"
	long := string(bytes.Repeat([]byte("a"), 16<<10))
	send := func(next func(int) []byte, pause time.Duration) func(*rig) (string, error) {
		return func(r *rig) (string, error) { return h1(r.plain, next, pause) }
	}
	return []attack{
		{name: "slowloris: a head byte by byte", conns: 200, run: send(after("GET / HTTP/1.1\r\nHost: app\r\nX: ", "a"), 100*time.Millisecond), want: "408 closed"},
		{name: "slow body byte by byte", conns: 100, run: send(after(head+"Content-Length: 1000\r\n\r\n", "a"), 100*time.Millisecond), want: "408 closed"},
		{name: "a body that never comes", conns: 100, run: send(once(head+"Content-Length: 1000\r\n\r\n"), 0), want: "(408|504) closed"},
		{name: "a response that is not read", conns: 5, run: slowRead, want: "closed"},
		{name: "a request line without end", conns: 4, run: send(after("GET /", long), 0), want: "4(14|31) closed"},
		{name: "a header line without end", conns: 4, run: send(after("GET / HTTP/1.1\r\nHost: app\r\nX: ", long), 0), want: "431 closed"},
		{name: "header lines without end", conns: 4, run: send(after("GET / HTTP/1.1\r\nHost: app\r\n", "x: y\r\n"), 0), want: "431 closed"},
		{name: "a chunk extension without end", conns: 4, run: send(after(chunked+"1;", long), 0), want: "4(00|31) closed"},
		{name: "trailers without end", conns: 4, run: send(after(chunked+"0\r\n", "x: "+long[:1000]+"\r\n"), 0), want: "4(00|31) closed"},
		{name: "a chunk size that overflows", conns: 4, run: send(once(chunked+"ffffffffffffffffff\r\n"), 0), want: "400 closed"},
		{name: "pipelining without reading", conns: 10, run: pipeline, want: "closed|held"},
		{name: "smuggling: length and chunks", conns: 4, run: send(once(head+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /good HTTP/1.1\r\nHost: app\r\n\r\n"), 0), want: "400 closed"},
		{name: "PROXY header where none is expected", conns: 4, run: send(once("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /good HTTP/1.1\r\nHost: app\r\n\r\n"), 0), want: "400 closed"},
		{name: "binary garbage", conns: 4, run: send(once("\x00\xff\x16\x03\x01PRI \x80\r\n\r\n"), 0), want: "400 closed"},
		{name: "connections that are closed at once", conns: 4, pause: 50 * time.Millisecond, run: churn, want: "closed"},
		{name: "connections that say nothing", conns: 500, run: send(func(int) []byte { return nil }, 0), want: "closed"},
		{name: "TLS handshakes that are not finished", conns: 200, run: halfTLS, want: "closed|held"},
		{name: "TLS handshakes for nothing", conns: 2, pause: 20 * time.Millisecond, run: handshakes, want: "closed"},
	}
}

// slowRead asks for much and takes nothing until the proxy should have given up.
func slowRead(r *rig) (string, error) {
	c, err := dial(r.plain)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /big HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
		return "", err
	}
	time.Sleep(4 * time.Second)
	n, err := io.Copy(io.Discard, c) // what is in the kernel's buffers, not all
	if n > 50<<20 || err != nil && !isReset(err) {
		return fmt.Sprintf("%d bytes", n), err
	}
	return "closed", nil
}

// pipeline sends requests and reads no response.
func pipeline(r *rig) (string, error) {
	c, err := dial(r.plain)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(attackFor))
	many := bytes.Repeat([]byte("GET /direct HTTP/1.1\r\nHost: app\r\n\r\n"), 1000)
	for range 10000 {
		if _, err := c.Write(many); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return "held", nil // the proxy reads no more than it can answer
			}
			if isReset(err) {
				return "closed", nil
			}
			return "", err
		}
	}
	return "took it all", nil
}
