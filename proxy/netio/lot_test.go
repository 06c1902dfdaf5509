package netio

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// startLot runs a lot until the test ends.
func startLot(t *testing.T) (*Lot, context.CancelFunc) {
	t.Helper()
	l, err := NewLot()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l, cancel
}

// tcpPair is a connection and its peer.
func tcpPair(t testing.TB) (c *Conn, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	p, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c = New(s)
	t.Cleanup(func() { _ = c.Close(); _ = p.Close() })
	return c, p.(*net.TCPConn)
}

func TestWhatEndsTheWaitOfAParkedConnection(t *testing.T) {
	for name, act := range map[string]func(l *Lot, c *Conn, peer *net.TCPConn, stop func()){
		"bytes":                   func(_ *Lot, _ *Conn, p *net.TCPConn, _ func()) { _, _ = p.Write([]byte("x")) },
		"the peer's end":          func(_ *Lot, _ *Conn, p *net.TCPConn, _ func()) { _ = p.CloseWrite() },
		"a reset":                 func(_ *Lot, _ *Conn, p *net.TCPConn, _ func()) { _ = p.SetLinger(0); _ = p.Close() },
		"our close":               func(_ *Lot, c *Conn, _ *net.TCPConn, _ func()) { _ = c.Close() },
		"our abort":               func(_ *Lot, c *Conn, _ *net.TCPConn, _ func()) { c.Abort() },
		"a deadline that was set": func(_ *Lot, c *Conn, _ *net.TCPConn, _ func()) { _ = c.SetReadDeadline(time.Now()) },
		"the lot's end":           func(_ *Lot, _ *Conn, _ *net.TCPConn, stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			l, stop := startLot(t)
			c, peer := tcpPair(t)
			woken := make(chan struct{}, 2)
			if !l.Park(c, time.Now().Add(time.Hour), func() { woken <- struct{}{} }) {
				t.Fatal("was not parked")
			}
			if n := l.Parked(); n != 1 {
				t.Fatalf("%d are parked", n)
			}
			act(l, c, peer, stop)
			<-woken
			if n := l.Parked(); n != 0 {
				t.Errorf("%d are parked", n)
			}
			_ = c.Close()
			_ = peer.Close()
			runtime.Gosched()
			if len(woken) != 0 {
				t.Error("was woken twice")
			}
		})
	}
}

func TestBytesThatCameBeforeWakeAtOnce(t *testing.T) {
	l, _ := startLot(t)
	c, peer := tcpPair(t)
	_, _ = peer.Write([]byte("early"))
	for c.Quiet() {
		runtime.Gosched()
	}
	woken := make(chan struct{})
	if !l.Park(c, time.Time{}, func() { close(woken) }) {
		t.Fatal("was not parked")
	}
	<-woken
	var b Buffer
	if err := c.Fill(&b); err != nil || string(b.Bytes()) != "early" {
		t.Errorf("%q, %v", b.Bytes(), err)
	}
	b.Release()
}

func TestAParkedConnectionIsWokenWhenItsTimeIsOver(t *testing.T) {
	l, _ := startLot(t)
	late, _ := tcpPair(t)
	soon, _ := tcpPair(t)
	after, _ := tcpPair(t)
	woken := make(chan time.Duration, 3) // since its time was over
	begin := time.Now()
	for _, p := range []struct {
		c *Conn
		d time.Duration
	}{{late, time.Hour}, {soon, 20 * time.Millisecond}, {after, 60 * time.Millisecond}} {
		if !l.Park(p.c, begin.Add(p.d), func() { woken <- time.Since(begin) - p.d }) {
			t.Fatal("was not parked")
		}
	}
	for range 2 {
		if d := <-woken; d < 0 {
			t.Errorf("woken %v too early", -d)
		}
	}
	if n := l.Parked(); n != 1 {
		t.Errorf("%d are parked, want the late one", n)
	}
}

func TestWhatCannotBeParked(t *testing.T) {
	l, stop := startLot(t)
	a, b := net.Pipe()
	defer func() { _ = a.Close(); _ = b.Close() }()
	if l.Park(New(a), time.Time{}, func() {}) {
		t.Error("a connection without a socket was parked")
	}
	c, peer := tcpPair(t)
	_, _ = peer.Write([]byte("xy"))
	if _, err := c.Peek(1); err != nil {
		t.Fatal(err)
	}
	if l.Park(c, time.Time{}, func() {}) {
		t.Error("a connection with bytes read ahead was parked")
	}
	shut, _ := tcpPair(t)
	_ = shut.Close()
	if l.Park(shut, time.Time{}, func() {}) {
		t.Error("a closed connection was parked")
	}
	stop()
	for {
		l.mu.Lock()
		over := l.over
		l.mu.Unlock()
		if over {
			break
		}
		runtime.Gosched()
	}
	open, _ := tcpPair(t)
	if l.Park(open, time.Time{}, func() {}) {
		t.Error("parked in a lot that nobody runs")
	}
}

// Descriptors are reused at once: a wake-up must reach the connection it is meant for.
func TestParkingWhileConnectionsComeAndGo(t *testing.T) {
	l, _ := startLot(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				c, peer := tcpPair(t)
				woken := make(chan struct{})
				if !l.Park(c, time.Time{}, func() { close(woken) }) {
					t.Error("was not parked")
					return
				}
				if i%2 == 0 {
					go func() { _, _ = peer.Write([]byte("x")) }()
				} else {
					go func() { _ = c.Close() }()
				}
				<-woken
				_ = c.Close()
				_ = peer.Close()
			}
		})
	}
	wg.Wait()
	if n := l.Parked(); n != 0 {
		t.Errorf("%d are still parked", n)
	}
}
