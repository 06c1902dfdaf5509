package protocol

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// parked waits until so many connections are parked or sleep.
func (r *rig) parked(n int) {
	r.t.Helper()
	proxytest.Until(r.t, "connections to be parked", func() bool { return r.stat("weft_proxy_connections_parked") == float64(n) })
}

// sleeper is a client whose connection idles between its requests.
type sleeper struct {
	c     net.Conn
	rd    *bufio.Reader
	first string // what wakes it, if it is no whole request
	rest  string
	n     int // requests
}

// TestConnectionsThatSleepAnswer as any other, whatever wakes them.
func TestConnectionsThatSleepAnswer(t *testing.T) {
	t.Parallel() // waits more than it works
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port})
	kinds := []sleeper{
		{rest: idleRequest, n: 1},
		{rest: idleRequest + idleRequest, n: 2},
		{first: idleRequest[:7], rest: idleRequest[7:], n: 1},
		{first: "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\n", rest: "hello", n: 1},
	}
	const each, rounds = 40, 3
	var all []*sleeper
	for range each {
		for _, k := range kinds {
			k.c = openIdle(t, r.plain)
			defer k.c.Close()
			k.rd = bufio.NewReader(k.c)
			all = append(all, &k)
		}
	}
	for range rounds {
		r.parked(len(all))
		for _, s := range all {
			say(t, s.c, s.first)
		}
		r.parked(len(all) / 2) // half has sent something
		var wg sync.WaitGroup
		for _, s := range all {
			wg.Go(func() { s.ask(t) })
		}
		wg.Wait()
	}
}

func (s *sleeper) ask(t *testing.T) {
	if _, err := io.WriteString(s.c, s.rest); err != nil {
		t.Error(err)
		return
	}
	for range s.n {
		if _, err := s.answer(); err != nil {
			t.Errorf("%q + %q: %v", s.first, s.rest, err)
			return
		}
	}
}

// answer reads one and tells whether it is the last.
func (s *sleeper) answer() (last bool, err error) {
	resp, err := http.ReadResponse(s.rd, nil)
	if err != nil {
		return false, err
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || len(b) == 0) {
		err = &http.ProtocolError{ErrorString: resp.Status}
	}
	return resp.Close, err
}

// Whoever sleeps when the proxy drains may still ask once, and is told that this was the last.
func TestADrainOfConnectionsThatSleep(t *testing.T) {
	t.Parallel()
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port, args: []string{"--drain-duration", "20s"}})
	one, other := openIdle(t, r.plain), openIdle(t, r.plain)
	defer one.Close()
	defer other.Close()
	r.parked(2)
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s := &sleeper{c: one, rd: bufio.NewReader(one)}
	proxytest.Until(t, "an answer that says it is the last", func() bool { // the signal takes its time
		say(t, one, idleRequest)
		last, err := s.answer()
		if err != nil {
			t.Fatal(err)
		}
		return last
	})
	_ = other.SetReadDeadline(time.Now().Add(15 * time.Second)) // less than the drain
	if b, err := io.ReadAll(other); err != nil || len(b) > 0 {
		t.Errorf("a connection that sleeps and asks nothing: %q, %v", b, err)
	}
	proxytest.Until(t, "the proxy to end", func() bool { return !alive(r.pid) }) // before the rig tells it to a second time
}
