package listener_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/listener"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// sleepy lets each connection sleep, echoes what wakes it, and lets it sleep again.
type sleepy struct {
	t            *testing.T
	slept, ended chan struct{}
	wakes        atomic.Int32
}

func (s *sleepy) ServeHTTP(_ context.Context, _ *config.HTTPManager, c *netio.Conn, _ *stream.ConnInfo, o listener.Owner) {
	s.again(c, o)
}

func (s *sleepy) again(c *netio.Conn, o listener.Owner) {
	if c == nil {
		o.Ended(nil)
		close(s.ended)
		return
	}
	if !c.Quiet() {
		var b netio.Buffer
		defer b.Release()
		if c.Fill(&b) != nil {
			s.again(nil, o)
			return
		}
		_, _ = c.Write(b.Bytes())
	}
	if !o.Sleep(time.Now().Add(time.Hour), func(c *netio.Conn) { s.wakes.Add(1); s.again(c, o) }) {
		s.t.Error("does not sleep")
	}
	s.slept <- struct{}{}
}

func TestAConnectionThatSleeps(t *testing.T) {
	for name, end := range map[string]func(m *listener.Manager, peer net.Conn, stop func()){
		"ends with the client's": func(_ *listener.Manager, p net.Conn, _ func()) { _ = p.Close() },
		"is cut at the end":      func(_ *listener.Manager, _ net.Conn, stop func()) { stop() },
		"drains": func(m *listener.Manager, _ net.Conn, _ func()) {
			if err := m.Drain(context.Background()); err != nil {
				panic(err)
			}
		},
		"is let go when memory is short": func(m *listener.Manager, _ net.Conn, _ func()) { m.Relieve() },
		"ends with its chain": func(m *listener.Manager, _ net.Conn, _ func()) {
			if err := m.Apply(view()); err != nil {
				panic(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			lot, err := netio.NewLot()
			if err != nil {
				t.Fatal(err)
			}
			lots, stopLot := context.WithCancel(context.Background())
			lotDone := make(chan struct{})
			go func() { defer close(lotDone); _ = lot.Run(lots) }()
			s := &sleepy{t: t, slept: make(chan struct{}, 10), ended: make(chan struct{})}
			m := listener.New(listener.Settings{HTTP: s, Lot: lot})
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); _ = m.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-done; stopLot(); <-lotDone })
			free, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := free.Addr().(*net.TCPAddr).AddrPort()
			_ = free.Close()
			if err := m.Apply(view(bound("a", netip.AddrPortFrom(addr.Addr(), addr.Port()).String(), httpChain("h", config.ChainMatch{})))); err != nil {
				t.Fatal(err)
			}
			peer, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = peer.Close() }()
			<-s.slept
			for range 3 {
				if _, err := io.WriteString(peer, "hello"); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 5)
				if _, err := io.ReadFull(peer, b); err != nil || string(b) != "hello" {
					t.Fatalf("%q, %v", b, err)
				}
				<-s.slept
			}
			if all := m.Connections(); len(all) != 1 || all[0].In != 15 || all[0].Out != 15 || all[0].Info.Remote.String() != peer.LocalAddr().String() || m.Active() != 1 {
				t.Errorf("%+v, %d active", all, m.Active())
			}
			end(m, peer, cancel)
			<-s.ended
			if m.Active() != 0 || lot.Parked() != 0 {
				t.Errorf("%d active, %d sleep", m.Active(), lot.Parked())
			}
			if _, err := peer.Read(make([]byte, 1)); err == nil {
				t.Error("the client's side is open")
			}
		})
	}
}

// runHTTP runs a manager with one listener, "a", until the test ends.
func runHTTP(t *testing.T, m *listener.Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := m.Apply(view(bound("a", "127.0.0.1:0", httpChain("h", config.ChainMatch{})))); err != nil {
		t.Fatal(err)
	}
}

// Who sleeps is told to drain without a look at those that are still being set up.
func TestRelieveWhileConnectionsCome(t *testing.T) {
	served := make(chan struct{}, 100)
	m := listener.New(listener.Settings{HTTP: serveFunc(func(o listener.Owner) {
		o.Ended(nil)
		served <- struct{}{}
	})})
	runHTTP(t, m)
	relieved := make(chan struct{})
	go func() {
		defer close(relieved)
		for range cap(served) {
			m.Relieve()
			<-served
		}
	}()
	for range cap(served) {
		c, err := net.Dial("tcp", m.Addresses()["a"].String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	<-relieved
}

func TestNothingSleepsWithoutALot(t *testing.T) {
	asked := make(chan bool, 1)
	m := listener.New(listener.Settings{HTTP: serveFunc(func(o listener.Owner) {
		asked <- o.Sleep(time.Time{}, func(*netio.Conn) {})
		o.Ended(nil)
	})})
	runHTTP(t, m)
	c, err := net.Dial("tcp", m.Addresses()["a"].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if <-asked {
		t.Error("sleeps nowhere")
	}
}

type serveFunc func(o listener.Owner)

func (f serveFunc) ServeHTTP(_ context.Context, _ *config.HTTPManager, _ *netio.Conn, _ *stream.ConnInfo, o listener.Owner) {
	f(o)
}
