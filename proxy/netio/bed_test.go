package netio

import (
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// napper is a Sleeper.
type napper struct {
	bed  atomic.Int32
	woke chan *Conn
}

func newNapper() *napper        { return &napper{woke: make(chan *Conn, 2)} }
func (n *napper) Slept(b int32) { n.bed.Store(b) }
func (n *napper) Wake(c *Conn)  { n.woke <- c }

func TestWhatEndsSleep(t *testing.T) {
	for name, act := range map[string]func(l *Lot, n *napper, peer *net.TCPConn, stop func()){
		"bytes":          func(_ *Lot, _ *napper, p *net.TCPConn, _ func()) { _, _ = p.Write([]byte("x")) },
		"the peer's end": func(_ *Lot, _ *napper, p *net.TCPConn, _ func()) { _ = p.CloseWrite() },
		"a reset":        func(_ *Lot, _ *napper, p *net.TCPConn, _ func()) { _ = p.SetLinger(0); _ = p.Close() },
		"a call":         func(l *Lot, n *napper, _ *net.TCPConn, _ func()) { l.Rouse(n.bed.Load(), n) },
		"the lot's end":  func(_ *Lot, _ *napper, _ *net.TCPConn, stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			l, stop := startLot(t)
			c, peer := tcpPair(t)
			n := newNapper()
			if !l.Sleep(c, time.Now().Add(time.Hour), n) {
				t.Fatal("does not sleep")
			}
			if l.Parked() != 1 || n.bed.Load() == 0 || !c.Closed() {
				t.Fatalf("%d sleep, in bed %d, the old one closed %v", l.Parked(), n.bed.Load(), c.Closed())
			}
			act(l, n, peer, stop)
			got := <-n.woke
			if name == "a reset" { // it may be over before there is a connection
				if got == nil {
					return
				}
			}
			if got == nil {
				t.Fatal("the connection was lost")
			}
			defer func() { _ = got.Close() }()
			if l.Parked() != 0 || n.bed.Load() != 0 {
				t.Errorf("%d sleep, in bed %d", l.Parked(), n.bed.Load())
			}
			l.Rouse(n.bed.Load(), n)
			runtime.Gosched()
			if len(n.woke) != 0 {
				t.Error("was woken twice")
			}
		})
	}
}

func TestWhoWakesHasTheSameConnection(t *testing.T) {
	l, _ := startLot(t)
	c, peer := tcpPair(t)
	local, remote := c.LocalAddr().String(), c.RemoteAddr().String()
	for i := range 20 { // and sleeps again
		n := newNapper()
		if !l.Sleep(c, time.Time{}, n) {
			t.Fatal("does not sleep")
		}
		if i%2 == 0 {
			_, _ = peer.Write([]byte("early"))
		} else {
			go func() { _, _ = peer.Write([]byte("early")) }()
		}
		c = <-n.woke
		if c == nil {
			t.Fatal("lost")
		}
		var b Buffer
		if err := c.Fill(&b); err != nil || string(b.Bytes()) != "early" {
			t.Fatalf("%q, %v", b.Bytes(), err)
		}
		b.Release()
		if c.LocalAddr().String() != local || c.RemoteAddr().String() != remote {
			t.Errorf("%v, %v", c.LocalAddr(), c.RemoteAddr())
		}
		if _, err := c.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 6)
		if _, err := io.ReadFull(peer, got); err != nil || string(got) != "answer" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	_ = c.Close()
}

func TestSleepEndsWhenItsTimeIsOver(t *testing.T) {
	l, _ := startLot(t)
	c, _ := tcpPair(t)
	n := newNapper()
	begin := time.Now()
	if !l.Sleep(c, begin.Add(20*time.Millisecond), n) {
		t.Fatal("does not sleep")
	}
	got := <-n.woke
	if d := time.Since(begin); d < 20*time.Millisecond {
		t.Errorf("woken after %v", d)
	}
	if got == nil {
		t.Fatal("lost")
	}
	_ = got.Close()
}

func TestWhatCannotSleep(t *testing.T) {
	l, _ := startLot(t)
	a, b := net.Pipe()
	defer func() { _ = a.Close(); _ = b.Close() }()
	if l.Sleep(New(a), time.Time{}, newNapper()) {
		t.Error("a connection without a socket sleeps")
	}
	c, peer := tcpPair(t)
	_, _ = peer.Write([]byte("xy"))
	if _, err := c.Peek(1); err != nil {
		t.Fatal(err)
	}
	if l.Sleep(c, time.Time{}, newNapper()) {
		t.Error("a connection with bytes read ahead sleeps")
	}
	shut, _ := tcpPair(t)
	_ = shut.Close()
	if l.Sleep(shut, time.Time{}, newNapper()) {
		t.Error("a closed connection sleeps")
	}
	secure, _ := tcpPair(t)
	secure.shim = &shim{c: secure}
	if l.Sleep(secure, time.Time{}, newNapper()) {
		t.Error("a connection with TLS sleeps")
	}
}

// Descriptors are reused at once, and none may be left.
func TestSleepWhileConnectionsComeAndGo(t *testing.T) {
	l, _ := startLot(t)
	before := descriptors(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				c, peer := tcpPair(t)
				n := newNapper()
				if !l.Sleep(c, time.Time{}, n) {
					t.Error("does not sleep")
					return
				}
				switch i % 3 {
				case 0:
					go l.Rouse(n.bed.Load(), n)
					_, _ = peer.Write([]byte("x"))
				case 1:
					_ = peer.Close()
				default:
					l.Rouse(n.bed.Load(), n)
				}
				if got := <-n.woke; got != nil {
					_ = got.Close()
				} else if i%3 != 1 {
					t.Error("lost")
				}
				_ = peer.Close()
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if after := descriptors(t); after <= before+2 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", after, before)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range d {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
