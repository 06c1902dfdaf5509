package memnet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// TestConnContract runs the suite that x/net has for every net.Conn.
func TestConnContract(t *testing.T) {
	pipes := func() (net.Conn, net.Conn, func(), error) {
		a, b := Pipe(Link{})
		return a, b, func() { a.Close(); b.Close() }, nil
	}
	t.Run("pipe", func(t *testing.T) { nettest.TestConn(t, pipes) })
	t.Run("dialed with a small buffer", func(t *testing.T) {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			n := New(Link{Buffer: 100})
			l, err := n.Listen("10.0.0.1:80")
			if err != nil {
				return nil, nil, nil, err
			}
			a, err := n.Dial("10.0.0.1:80")
			if err != nil {
				return nil, nil, nil, err
			}
			b, err := l.Accept()
			return a, b, func() { a.Close(); b.Close(); l.Close() }, err
		})
	})
}

func mustWrite(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("Write(%q) = %d, %v", s, n, err)
	}
}

func mustRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

func wantReadError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) {
		t.Errorf("Read = %d, %v, want 0, %v", n, err, want)
	}
}

func wantWriteError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Write([]byte("x")); n != 0 || !errors.Is(err, want) {
		t.Errorf("Write = %d, %v, want 0, %v", n, err, want)
	}
}

func TestHowAConnectionEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(a *Conn)
		// What each side sees then; a has sent "data" before, and b has sent "back".
		bRead, bWrite, aRead, aWrite error
	}{
		{"close", func(a *Conn) { a.Close() }, io.EOF, syscall.EPIPE, net.ErrClosed, net.ErrClosed},
		{"half-close leaves the other direction", func(a *Conn) { a.CloseWrite() }, io.EOF, nil, nil, syscall.EPIPE},
		{"close after half-close", func(a *Conn) { a.CloseWrite(); a.Close() }, io.EOF, syscall.EPIPE, net.ErrClosed, net.ErrClosed},
		{"close of reading drops what comes", func(a *Conn) { a.CloseRead() }, os.ErrDeadlineExceeded, nil, io.EOF, nil},
		{"reset", func(a *Conn) { a.Reset() }, syscall.ECONNRESET, syscall.ECONNRESET, net.ErrClosed, net.ErrClosed},
		{"close with linger zero resets", func(a *Conn) { a.SetLinger(0); a.Close() }, syscall.ECONNRESET, syscall.ECONNRESET, net.ErrClosed, net.ErrClosed},
		{"injected reset hits both ends", func(a *Conn) { a.ResetAfter(0) }, syscall.ECONNRESET, syscall.ECONNRESET, nil, syscall.ECONNRESET},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := Pipe(Link{})
			mustWrite(t, a, "data")
			mustWrite(t, b, "back")
			tt.end(a)
			mustRead(t, b, "data") // what was sent before always arrives
			_ = b.SetReadDeadline(time.Now().Add(-time.Second))
			if tt.bRead != os.ErrDeadlineExceeded {
				_ = b.SetReadDeadline(time.Time{})
			}
			wantReadError(t, b, tt.bRead)
			if tt.aRead == nil {
				mustRead(t, a, "back")
			} else {
				wantReadError(t, a, tt.aRead)
			}
			for _, w := range []struct {
				c    *Conn
				want error
			}{{b, tt.bWrite}, {a, tt.aWrite}} {
				if w.want != nil {
					wantWriteError(t, w.c, w.want)
				} else {
					mustWrite(t, w.c, "more")
				}
			}
		})
	}
}

func TestErrorsLookLikeTheKernels(t *testing.T) {
	a, b := Pipe(Link{})
	b.Reset()
	_, err := a.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "read" || op.Net != "tcp" {
		t.Fatalf("error %#v, want a *net.OpError of a tcp read", err)
	}
	if want := "read tcp 127.0.0.1:40000->127.0.0.1:80: read: connection reset by peer"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if err := b.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close = %v, want net.ErrClosed", err)
	}
	for name, f := range map[string]func() error{
		"CloseWrite":  b.CloseWrite,
		"CloseRead":   b.CloseRead,
		"SetDeadline": func() error { return b.SetDeadline(time.Time{}) },
	} {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed connection = %v, want net.ErrClosed", name, err)
		}
	}
}

func TestBufferBoundsTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(Link{Buffer: 10})
		start := time.Now()
		time.AfterFunc(time.Minute, func() { _, _ = io.ReadFull(b, make([]byte, 15)) })
		n, err := a.Write(make([]byte, 25))
		if n != 25 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if got := time.Since(start); got != time.Minute {
			t.Errorf("25 bytes went into a buffer of 10 after %v, want to wait for the reader's minute", got)
		}
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := a.Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write into a full buffer = %d, %v, want deadline exceeded", n, err)
		}
		a.Close()
		b.Close()
	})
}

func TestWriteSaysHowMuchWentOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(Link{Buffer: 10})
		time.AfterFunc(time.Second, func() { b.Close() })
		if n, err := a.Write(make([]byte, 25)); n != 10 || !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Write = %d, %v, want 10, EPIPE", n, err)
		}
	})
}

func TestWritesDoNotMix(t *testing.T) {
	a, b := Pipe(Link{Buffer: 7})
	var wg sync.WaitGroup
	for _, c := range []byte("abcd") {
		wg.Go(func() {
			for range 20 {
				if _, err := a.Write(bytes.Repeat([]byte{c}, 50)); err != nil {
					t.Errorf("Write: %v", err)
				}
			}
		})
	}
	block := make([]byte, 50)
	for range 80 {
		if _, err := io.ReadFull(b, block); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(block, block[:1]) != 50 {
			t.Fatalf("block %q mixes two writes", block)
		}
	}
	wg.Wait()
}

func TestLatencyDelaysDataAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(Link{Latency: 50 * time.Millisecond})
		start := time.Now()
		since := func(want time.Duration) {
			t.Helper()
			if got := time.Since(start); got != want {
				t.Errorf("after %v, want %v", got, want)
			}
		}
		mustWrite(t, a, "one")
		time.Sleep(10 * time.Millisecond)
		mustWrite(t, a, "two")
		a.CloseWrite()
		since(10 * time.Millisecond) // writing does not wait
		p := make([]byte, 10)
		if n, _ := b.Read(p); string(p[:n]) != "one" {
			t.Errorf("read %q, want the first write only", p[:n])
		}
		since(50 * time.Millisecond)
		mustRead(t, b, "two")
		wantReadError(t, b, io.EOF)
		since(60 * time.Millisecond)
	})
}

func TestReadDeadlineComesBeforeLateData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(Link{Latency: time.Second})
		mustWrite(t, a, "late")
		_ = b.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		wantReadError(t, b, os.ErrDeadlineExceeded)
		_ = b.SetReadDeadline(time.Time{})
		mustRead(t, b, "late")
	})
}

func TestResetAfterSomeBytes(t *testing.T) {
	a, b := Pipe(Link{ResetAfter: 5})
	n, err := a.Write([]byte("hello world"))
	if n != 5 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Write = %d, %v, want 5, ECONNRESET", n, err)
	}
	mustRead(t, b, "hello")
	wantReadError(t, b, syscall.ECONNRESET)
	wantReadError(t, a, syscall.ECONNRESET)
	wantWriteError(t, b, syscall.ECONNRESET)

	a, b = Pipe(Link{})
	mustWrite(t, a, "free")
	a.ResetAfter(3)
	mustWrite(t, a, "end") // exactly the limit is delivered and then resets
	mustRead(t, b, "freeend")
	wantReadError(t, b, syscall.ECONNRESET)
	wantReadError(t, a, syscall.ECONNRESET)
}

func TestStallIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(Link{StallAfter: 2})
		mustWrite(t, a, "hello")
		a.CloseWrite()
		mustRead(t, b, "he")
		_ = b.SetReadDeadline(time.Now().Add(time.Hour))
		wantReadError(t, b, os.ErrDeadlineExceeded)
		_ = b.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Second, a.Resume)
		mustRead(t, b, "llo")
		wantReadError(t, b, io.EOF)

		b.StallAfter(0) // the other direction, from now
		mustWrite(t, b, "x")
		_ = a.SetReadDeadline(time.Now().Add(time.Hour))
		wantReadError(t, a, os.ErrDeadlineExceeded)
	})
}

func TestConcurrentUseOfEverything(t *testing.T) {
	a, b := Pipe(Link{Buffer: 16, Latency: time.Microsecond})
	var wg sync.WaitGroup
	for _, c := range []*Conn{a, b} {
		wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
		wg.Go(func() {
			for range 200 {
				_, _ = c.Write(make([]byte, 40))
				_ = c.SetDeadline(time.Now().Add(time.Second))
				c.StallAfter(10)
				c.Resume()
			}
			_ = c.CloseWrite()
		})
	}
	wg.Wait()
	a.Close()
	b.Close()
}
