package hotrestart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var self = Peer{Node: "sidecar~10.0.0.1~web-1.default~default.svc.cluster.local", Role: "sidecar", NetNS: 4026531840, Software: "v1", PID: 7}

// offer is a parent that runs until the test ends.
type offer struct {
	*Parent
	path string
	log  safeBuffer

	mu      sync.Mutex
	handed  []Terms // mu protects the following
	sockets map[Key]syscall.Conn

	end func() (Terms, bool) // ends it, and waits
}

type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func startOffer(t *testing.T, path string, change func(*Settings)) *offer {
	t.Helper()
	o := &offer{path: path, sockets: map[Key]syscall.Conn{}}
	s := Settings{Path: path, Self: self, Lineage: Lineage{Epoch: 2, Started: time.UnixMilli(1_700_000_000_123)}, Inherited: []uint16{80, 443}, UID: -1,
		Socket: func(k Key) syscall.Conn {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.sockets[k]
		},
		HandOver: func(terms Terms) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.handed = append(o.handed, terms)
		},
		Log: slog.New(slog.NewTextHandler(&o.log, nil)),
	}
	if change != nil {
		change(&s)
	}
	p, err := Offer(s)
	if err != nil {
		t.Fatal(err)
	}
	o.Parent = p
	ctx, cancel := context.WithCancel(t.Context())
	var terms Terms
	var ok bool
	done := make(chan struct{})
	go func() { defer close(done); terms, ok = p.Run(ctx) }()
	o.end = func() (Terms, bool) { cancel(); <-done; return terms, ok }
	t.Cleanup(func() { o.end() })
	return o
}

func (o *offer) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.handed)
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func socketPath(t *testing.T) string { return SocketPath(t.TempDir()) }

func until2(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func TestASocketMovesWithWhatWaitsInItsQueue(t *testing.T) {
	o := startOffer(t, socketPath(t), nil)
	ln := listenTCP(t)
	key := Key{Listener, ln.Addr().String()}
	o.mu.Lock()
	o.sockets[key] = ln
	o.mu.Unlock()
	c, err := Connect(t.Context(), o.path, Peer{Node: self.Node, Role: self.Role, NetNS: self.NetNS, Software: "v2", PID: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if d := cmp.Diff(self, c.Parent); d != "" {
		t.Error(d)
	}
	if want := (Lineage{3, time.UnixMilli(1_700_000_000_123)}); c.Lineage != want {
		t.Errorf("lineage = %v, want %v", c.Lineage, want)
	}
	if d := cmp.Diff([]uint16{80, 443}, c.Inherited); d != "" {
		t.Error(d)
	}
	waiting, err := net.Dial("tcp", ln.Addr().String()) // nobody accepts yet
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	got, err := c.Take(t.Context(), key)
	if err != nil || got == nil {
		t.Fatalf("Take = %v, %v", got, err)
	}
	defer got.Close()
	if other, err := c.Take(t.Context(), Key{Listener, "127.0.0.1:1"}); other != nil || err != nil {
		t.Errorf("Take of what the parent has not = %v, %v", other, err)
	}
	if o.count() != 0 {
		t.Error("handed over before the child serves")
	}
	want := Terms{Drain: 1500 * time.Millisecond, Shutdown: time.Minute}
	if err := c.Serving(t.Context(), want); err != nil || c.Gone() {
		t.Fatalf("Serving = %v, gone %v", err, c.Gone())
	}
	if terms, ok := o.end(); !ok || terms != want || o.count() != 1 || o.handed[0] != want {
		t.Errorf("Run = %v, %v; handed over %v", terms, ok, o.handed)
	}
	ln.Close()
	nc, err := got.Accept() // what came before the parent closed
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	flags, err := flagsOf(got.(syscall.Conn))
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags of the descriptor = %#x, %v: want close-on-exec", flags, err)
	}
}

func flagsOf(c syscall.Conn) (flags int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := rc.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFD, 0) }); e != nil {
		return 0, e
	}
	return flags, err
}

func TestTheParentAcceptsWhileAndAfterItsSocketWasTaken(t *testing.T) {
	o := startOffer(t, socketPath(t), nil)
	ln := listenTCP(t)
	key := Key{Admin, ln.Addr().String()}
	o.mu.Lock()
	o.sockets[key] = ln
	o.mu.Unlock()
	accepted := make(chan error, 1)
	go func() { _, err := ln.Accept(); accepted <- err }()
	c, err := Connect(t.Context(), o.path, self)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Take(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	c.Close() // the child dies before it serves
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := <-accepted; err != nil {
		t.Errorf("accept = %v", err)
	}
	until2(t, "the parent to notice", func() bool { return strings.Contains(o.log.String(), "came to nothing") })
	again, err := Connect(t.Context(), o.path, self)
	if err != nil {
		t.Fatalf("after a child that died: %v", err)
	}
	again.Close()
	if terms, ok := o.end(); ok || o.count() != 0 {
		t.Errorf("Run = %v, %v, handed over %d times", terms, ok, o.count())
	}
	if _, err := os.Stat(o.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays after the end: %v", err)
	}
}

func TestStrangersAreRefusedWithTheReason(t *testing.T) {
	change := func(f func(*Peer)) Peer { p := self; f(&p); return p }
	for _, tc := range []struct {
		name  string
		child Peer
		uid   int
		want  string
	}{
		{"another node", change(func(p *Peer) { p.Node = "sidecar~10.0.0.2~api-1.default~default.svc.cluster.local" }), -1, "api-1.default"},
		{"another role", change(func(p *Peer) { p.Role = "router" }), -1, "router"},
		{"another network namespace", change(func(p *Peer) { p.NetNS = 5 }), -1, "namespace 5"},
		{"another user", self, os.Geteuid() + 1, fmt.Sprintf("belongs to user %d", os.Geteuid())},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := startOffer(t, socketPath(t), func(s *Settings) { s.UID = tc.uid })
			_, err := Connect(t.Context(), o.path, tc.child)
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(refused.Reason, tc.want) {
				t.Errorf("error = %v, want a refusal with %q", err, tc.want)
			}
			if o.count() != 0 {
				t.Error("handed over")
			}
		})
	}
}

func TestOneChildAtATime(t *testing.T) {
	o := startOffer(t, socketPath(t), nil)
	c, err := Connect(t.Context(), o.path, self)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var refused *RefusedError
	if _, err := Connect(t.Context(), o.path, self); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "another process") {
		t.Errorf("error = %v", err)
	}
	if err := c.Serving(t.Context(), Terms{}); err != nil {
		t.Errorf("the first: %v", err)
	}
}

func TestAChildThatHangsIsSentAwayAndKnowsIt(t *testing.T) {
	o := startOffer(t, socketPath(t), func(s *Settings) { s.limit = 50 * time.Millisecond })
	for _, ask := range []func(c *Child) error{
		func(c *Child) error { _, err := c.Take(t.Context(), Key{Listener, "127.0.0.1:1"}); return err },
		func(c *Child) error { return c.Serving(t.Context(), Terms{}) },
	} {
		c, err := Connect(t.Context(), o.path, self)
		if err != nil {
			t.Fatal(err)
		}
		until2(t, "the parent to lose patience", func() bool {
			other, err := Connect(t.Context(), o.path, self)
			if err == nil {
				other.Close()
			}
			return err == nil
		})
		var refused *RefusedError
		if err := ask(c); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "within 50ms") {
			t.Errorf("error = %v", err)
		}
		if c.Gone() {
			t.Error("the parent is taken for dead")
		}
		c.Close()
		until2(t, "the parent to be free", func() bool { return !o.busy.Load() })
	}
	if o.count() != 0 {
		t.Error("handed over")
	}
}

func TestNobodyThereIsToldApart(t *testing.T) {
	path := socketPath(t)
	if _, err := Connect(t.Context(), path, self); !errors.Is(err, ErrNone) {
		t.Errorf("no file: %v", err)
	}
	if _, ok := Running(path); ok {
		t.Error("Running without a file")
	}
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close() // as a process that was killed leaves it
	if _, err := Connect(t.Context(), path, self); !errors.Is(err, ErrNone) {
		t.Errorf("a dead process's file: %v", err)
	}
	o := startOffer(t, path, nil) // replaces the dead one
	if pid, ok := Running(path); !ok || pid != os.Getpid() {
		t.Errorf("Running = %d, %v", pid, ok)
	}
	until2(t, "the look to be over", func() bool {
		c, err := Connect(t.Context(), path, self)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if s := o.log.String(); strings.Contains(s, "refused") {
		t.Errorf("looking is logged:\n%s", s)
	}
}

func TestTheSocketIsForItsUserOnlyAndItsSuccessorsStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "hot-restart.sock") // longer than sun_path
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	old := startOffer(t, path, nil)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", st.Mode(), err)
	}
	next := startOffer(t, path, func(s *Settings) { s.Self.PID = 9 })
	old.end()
	c, err := Connect(t.Context(), path, self)
	if err != nil {
		t.Fatalf("the old one took the new one's socket away: %v", err)
	}
	defer c.Close()
	if c.Parent.PID != 9 {
		t.Errorf("talked to %d", c.Parent.PID)
	}
	next.end()
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// raw sends bytes and descriptors as they are and returns what comes back: a type, or "" for an end.
func raw(t *testing.T, path string, packets ...[]byte) (answers []string) {
	t.Helper()
	c, err := net.DialUnix(network, nil, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	for _, p := range packets {
		if _, err := c.Write(p); err != nil {
			break
		}
		m, fd, err := conn{c}.receive()
		closeIf(fd)
		if err != nil {
			return append(answers, "")
		}
		answers = append(answers, m.Type)
	}
	return answers
}

func packet(t *testing.T, m message) []byte {
	t.Helper()
	b, err := encode(&m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNonsenseEndsTheConversationAndNothingElse(t *testing.T) {
	o := startOffer(t, socketPath(t), nil)
	hello := packet(t, message{Type: msgHello, Min: 1, Max: 1, Peer: self})
	for _, tc := range []struct {
		name    string
		packets [][]byte
		want    []string
	}{
		{"no JSON", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, []string{""}},
		{"half a message", [][]byte{hello[:len(hello)/2]}, []string{""}},
		{"two in one", [][]byte{append(append([]byte{}, hello...), hello...)}, []string{""}},
		{"too long", [][]byte{append(hello, []byte(strings.Repeat(" ", maxMessage))...)}, []string{""}},
		{"zero bytes", [][]byte{make([]byte, 64)}, []string{""}},
		{"of no type", [][]byte{[]byte(`{}`)}, []string{""}},
		{"of an unknown type", [][]byte{[]byte(`{"type":"stop"}`)}, []string{""}},
		{"the parent's own", [][]byte{packet(t, message{Type: msgDraining})}, []string{""}},
		{"serving before hello", [][]byte{packet(t, message{Type: msgServing})}, []string{""}},
		{"hello without a node", [][]byte{[]byte(`{"type":"hello","min":1,"max":1}`)}, []string{""}},
		{"hello without versions", [][]byte{packet(t, message{Type: msgHello, Peer: self})}, []string{""}},
		{"only later versions", [][]byte{packet(t, message{Type: msgHello, Min: 2, Max: 9, Peer: self})}, []string{msgRefused}},
		{"hello twice", [][]byte{hello, hello}, []string{msgWelcome, ""}},
		{"take of nothing", [][]byte{hello, packet(t, message{Type: msgTake})}, []string{msgWelcome, ""}},
		{"take of a kind that is none", [][]byte{hello, packet(t, message{Type: msgTake, Key: Key{"file", "/etc/shadow"}})}, []string{msgWelcome, ""}},
		{"take of an address that is none", [][]byte{hello, packet(t, message{Type: msgTake, Key: Key{Listener, "::::"}})}, []string{msgWelcome, msgNone}},
		{"serving for ever", [][]byte{hello, packet(t, message{Type: msgServing, ShutdownMS: 1 << 60})}, []string{msgWelcome, ""}},
		{"a later release's fields are no nonsense", [][]byte{[]byte(`{"type":"hello","min":1,"max":7,"node":"` + self.Node + `","role":"sidecar","netns":4026531840,"colour":"blue"}`)}, []string{msgWelcome}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// The one before may not be over yet.
			until2(t, "the parent to be free", func() bool {
				c, err := Connect(t.Context(), o.path, self)
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			until2(t, "the answer", func() bool {
				got := raw(t, o.path, tc.packets...)
				if len(got) > 0 && got[0] == msgRefused && tc.want[0] != msgRefused {
					return false // still busy
				}
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Fatal(d)
				}
				return true
			})
			if o.count() != 0 {
				t.Fatal("handed over")
			}
		})
	}
}

func TestDescriptorsWhereNoneBelongAreClosed(t *testing.T) {
	o := startOffer(t, socketPath(t), nil)
	before := descriptors(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, n := range []int{1, 2, 20} {
		c, err := net.DialUnix(network, nil, &net.UnixAddr{Name: o.path, Net: network})
		if err != nil {
			t.Fatal(err)
		}
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(w.Fd())
		}
		if _, _, err := c.WriteMsgUnix(packet(t, message{Type: msgHello, Min: 1, Max: 1, Peer: self}), unix.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := (conn{c}).expect(msgWelcome); err == nil {
			t.Errorf("%d descriptors: welcomed", n)
		}
		c.Close()
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read = %v: somebody still holds the descriptor", err)
	}
	r.Close()
	until2(t, "as many descriptors as before", func() bool { return descriptors(t) <= before })
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// fakeParent answers a child with what a test says.
func fakeParent(t *testing.T, path string, answer func(c conn, m *message)) {
	t.Helper()
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.AcceptUnix()
		if err != nil {
			return
		}
		defer nc.Close()
		for {
			m, err := (conn{nc}).expect(msgHello, msgTake, msgServing)
			if err != nil {
				return
			}
			if m.Type == msgHello {
				_ = conn{nc}.send(&message{Type: msgWelcome, Version: 1, Peer: self}, -1)
				continue
			}
			answer(conn{nc}, m)
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
}

func TestAChildChecksWhatItIsGiven(t *testing.T) {
	tcp, other := listenTCP(t), listenTCP(t)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	client, err := net.Dial("tcp", other.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	give := func(s syscall.Conn) func(conn, *message) {
		return func(c conn, _ *message) {
			fd, err := duplicate(s)
			if err != nil {
				t.Error(err)
			}
			defer unix.Close(fd)
			_ = c.send(&message{Type: msgSocket}, fd)
		}
	}
	for _, tc := range []struct {
		name   string
		answer func(conn, *message)
		want   string
	}{
		{"a socket of another address", give(other), "got a socket of"},
		{"a file", give(file), "not a socket|socket operation|non-socket"},
		{"a connection", give(client.(*net.TCPConn)), "no listening TCP socket"},
		{"no descriptor", func(c conn, _ *message) { _ = c.send(&message{Type: msgSocket}, -1) }, "out of place"},
		{"another message", func(c conn, _ *message) { _ = c.send(&message{Type: msgDraining}, -1) }, "out of place"},
		{"nonsense", func(c conn, _ *message) { _, _ = c.c.Write([]byte("{")) }, "message:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := socketPath(t)
			fakeParent(t, path, tc.answer)
			c, err := Connect(t.Context(), path, self)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ln, err := c.Take(t.Context(), Key{Listener, tcp.Addr().String()})
			ok := false
			for _, w := range strings.Split(tc.want, "|") {
				ok = ok || err != nil && strings.Contains(err.Error(), w)
			}
			if ln != nil || !ok {
				t.Errorf("Take = %v, %v; want an error with %q", ln, err, tc.want)
			}
		})
	}
}

func TestAParentThatDiesLeavesItsPlace(t *testing.T) {
	path := socketPath(t)
	fakeParent(t, path, func(c conn, _ *message) { _ = c.c.Close() })
	c, err := Connect(t.Context(), path, self)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ln, err := c.Take(t.Context(), Key{Listener, "127.0.0.1:1"}); ln != nil || err != nil || !c.Gone() {
		t.Errorf("Take = %v, %v, gone %v", ln, err, c.Gone())
	}
	if err := c.Serving(t.Context(), Terms{}); err != nil {
		t.Errorf("Serving = %v", err)
	}
}

func TestAParentThatRefusesInTheEnd(t *testing.T) {
	path := socketPath(t)
	fakeParent(t, path, func(c conn, _ *message) { _ = c.send(&message{Type: msgRefused, Reason: "no"}, -1) })
	c, err := Connect(t.Context(), path, self)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var refused *RefusedError
	if err := c.Serving(t.Context(), Terms{}); !errors.As(err, &refused) || refused.Reason != "no" {
		t.Errorf("Serving = %v", err)
	}
}

func TestAChildThatGivesUpWaitsNoLonger(t *testing.T) {
	path := socketPath(t)
	fakeParent(t, path, func(conn, *message) {}) // never answers
	c, err := Connect(t.Context(), path, self)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Take(ctx, Key{Listener, "127.0.0.1:1"}); err == nil {
		t.Error("Take without an answer")
	}
}

func TestWhatAnAddressMatches(t *testing.T) {
	addr := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, tc := range []struct {
		bound string
		key   Key
		want  bool
	}{
		{"127.0.0.1:80", Key{Listener, "127.0.0.1:80"}, true},
		{"127.0.0.1:80", Key{Listener, "127.0.0.1:81"}, false},
		{"127.0.0.1:80", Key{Listener, "127.0.0.2:80"}, false},
		{"0.0.0.0:80", Key{Listener, "0.0.0.0:80"}, true},
		{"127.0.0.1:80", Key{Listener, "0.0.0.0:80"}, false},
		{"[::]:80", Key{Listener, "[::]:80"}, true},
		{"[::1]:80", Key{Listener, "[::]:80"}, false},
		{"[::]:15020", Key{Admin, ":15020"}, true},
		{"[::]:15021", Key{Admin, ":15020"}, false},
		{"127.0.0.1:39999", Key{Admin, "127.0.0.1:0"}, true},
		{"127.0.0.1:8080", Key{Inherited, "8080"}, true},
		{"127.0.0.1:8080", Key{Inherited, "80"}, false},
		{"127.0.0.1:80", Key{Listener, "80"}, false},
		{"127.0.0.1:80", Key{Listener, "127.0.0.1:http"}, false},
	} {
		if got := matches(addr(tc.bound), tc.key); got != tc.want {
			t.Errorf("%s for %q = %v", tc.bound, tc.key, got)
		}
	}
	if matches(&net.UnixAddr{Name: "x"}, Key{Listener, "127.0.0.1:80"}) {
		t.Error("a Unix socket matches")
	}
}
