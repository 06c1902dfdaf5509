package netns

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func newHandle(t *testing.T) *Handle {
	t.Helper()
	h, err := New()
	if Unsupported(err) {
		t.Skipf("SKIPPED, NOT TESTED: network namespaces need CAP_SYS_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestEachNewNamespaceIsItsOwn(t *testing.T) {
	a, b := newHandle(t), newHandle(t)
	own, err := FromThread()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if a.Inode() == b.Inode() || a.Inode() == own.Inode() {
		t.Errorf("inodes %d, %d and our own %d: want three different ones", a.Inode(), b.Inode(), own.Inode())
	}
}

func TestDoRunsInsideAndLeavesOtherThreadsAlone(t *testing.T) {
	h := newHandle(t)
	before, _ := os.Readlink(threadNS)
	var inside uint64
	if err := h.Do(func() error {
		in, err := FromThread()
		if err != nil {
			return err
		}
		defer in.Close()
		inside = in.Inode()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if inside != h.Inode() {
		t.Errorf("inside namespace %d, want %d", inside, h.Inode())
	}
	for range 50 {
		if now, _ := os.Readlink(threadNS); now != before {
			t.Fatalf("a thread stayed in %s, want %s", now, before)
		}
	}
}

func TestDialReachesOnlyListenersInside(t *testing.T) {
	h := newHandle(t)
	if err := h.Do(func() error { return SetLoopbackUp() }); err != nil {
		t.Fatal(err)
	}
	ln, err := h.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			io.WriteString(c, "inside")
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := h.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, _ := io.ReadAll(c); string(b) != "inside" {
		t.Errorf("read %q, want %q", b, "inside")
	}
	if c, err := net.DialTimeout("tcp", ln.Addr().String(), time.Second); err == nil {
		c.Close()
		t.Error("reached the listener from outside the namespace")
	}
}

func TestDialRefusesNames(t *testing.T) {
	var h Handle
	if _, err := h.Dial(context.Background(), "tcp", "localhost:80"); err == nil {
		t.Error("a host name was accepted; it would be resolved outside the namespace")
	}
}
