package netio

import (
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// napper is a Sleeper.
type napper struct {
	bed  atomic.Int32
	woke chan *Conn // nil: it is over
	err  error      // then
}

func newNapper() *napper         { return &napper{woke: make(chan *Conn, 2)} }
func (n *napper) Slept(b int32)  { n.bed.Store(b) }
func (n *napper) Wake(c *Conn)   { n.woke <- c }
func (n *napper) Over(err error) { n.err = err; n.woke <- nil }

func TestWhatEndsSleep(t *testing.T) {
	type act struct {
		do   func(l *Lot, n *napper, peer *net.TCPConn, stop func())
		over bool // instead of waking
	}
	for name, a := range map[string]act{
		"bytes":          {func(_ *Lot, _ *napper, p *net.TCPConn, _ func()) { _, _ = p.Write([]byte("x")) }, false},
		"the peer's end": {func(_ *Lot, _ *napper, p *net.TCPConn, _ func()) { _ = p.CloseWrite() }, false},
		"a reset":        {func(_ *Lot, _ *napper, p *net.TCPConn, _ func()) { _ = p.SetLinger(0); _ = p.Close() }, false},
		"a drop":         {func(l *Lot, n *napper, _ *net.TCPConn, _ func()) { l.Drop(n.bed.Load(), n) }, true},
		"a shorter time": {func(l *Lot, n *napper, _ *net.TCPConn, _ func()) {
			l.Hasten(n.bed.Load(), n, time.Now().Add(10*time.Millisecond))
			l.Hasten(n.bed.Load(), n, time.Now().Add(time.Hour)) // changes nothing
		}, true},
		"the lot's end": {func(_ *Lot, _ *napper, _ *net.TCPConn, stop func()) { stop() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, stop := startLot(t)
			c, peer := tcpPair(t)
			n := newNapper()
			if !l.Sleep(c, time.Now().Add(time.Minute), n) {
				t.Fatal("does not sleep")
			}
			bed := n.bed.Load()
			if l.Parked() != 1 || bed == 0 || !c.Closed() {
				t.Fatalf("%d sleep, in bed %d, the old one closed %v", l.Parked(), bed, c.Closed())
			}
			a.do(l, n, peer, stop)
			got := <-n.woke
			if got != nil {
				defer func() { _ = got.Close() }()
			} else if _, err := peer.Read(make([]byte, 1)); err != io.EOF && name != "a reset" {
				t.Errorf("the peer's side: %v", err)
			}
			if (got == nil) != a.over && name != "a reset" || got == nil && n.err != nil && name != "a reset" {
				t.Errorf("over: %v, %v", got == nil, n.err) // who was reset may be gone before there is a connection
			}
			if l.Parked() != 0 || n.bed.Load() != 0 {
				t.Errorf("%d sleep, in bed %d", l.Parked(), n.bed.Load())
			}
			l.Drop(bed, n)
			l.Hasten(bed, n, time.Now())
			if len(n.woke) != 0 {
				t.Error("was told twice")
			}
		})
	}
}

// Who has something to say at the moment that its time is over is heard.
func TestWhatCameInTimeIsNotLost(t *testing.T) {
	l, err := NewLot()
	if err != nil {
		t.Fatal(err)
	}
	defer l.end()
	c, peer := tcpPair(t)
	n := newNapper()
	if !l.Sleep(c, time.Now().Add(-time.Second), n) {
		t.Fatal("does not sleep")
	}
	_, _ = peer.Write([]byte("x"))
	l.expire(time.Now()) // as if the lot had not heard of it yet
	got := <-n.woke
	if got == nil {
		t.Fatal("is over")
	}
	_ = got.Close()
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
	c, peer := tcpPair(t)
	n := newNapper()
	begin := time.Now()
	if !l.Sleep(c, begin.Add(20*time.Millisecond), n) {
		t.Fatal("does not sleep")
	}
	got := <-n.woke
	if d := time.Since(begin); d < 20*time.Millisecond {
		t.Errorf("ended after %v", d)
	}
	if got != nil || n.err != nil {
		t.Errorf("%v, %v", got, n.err)
	}
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer's side: %v", err)
	}
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
				bed := n.bed.Load()
				switch i % 3 {
				case 0:
					wg.Go(func() { l.Drop(bed, n) })
					_, _ = peer.Write([]byte("x"))
				case 1:
					_ = peer.Close()
				default:
					wg.Go(func() { l.Hasten(bed, n, time.Now()) })
				}
				got := <-n.woke
				if got != nil {
					_ = got.Close()
				}
				if n.err != nil || got == nil && i%3 == 1 {
					t.Errorf("%d: %v, %v", i%3, got, n.err)
				}
				_ = peer.Close()
			}
		})
	}
	wg.Wait()
	if after := descriptors(t); after > before+2 {
		t.Fatalf("%d descriptors, %d before", after, before)
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
