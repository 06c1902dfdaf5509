package netio_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream/streamtest"
)

// each runs f over every kind of connection.
func each(t *testing.T, f func(t *testing.T, client, server *netio.Conn)) {
	for _, tr := range streamtest.Transports() {
		t.Run(tr.Name, func(t *testing.T) {
			client, server := tr.Pair(t)
			t.Cleanup(func() {
				_ = client.Close()
				_ = server.Close()
			})
			f(t, client, server)
		})
	}
}

func write(t *testing.T, c *netio.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, c *netio.Conn, b *netio.Buffer, want string) {
	t.Helper()
	for b.Len() < len(want) {
		if err := c.Fill(b); err != nil {
			t.Fatal(err)
		}
	}
	if string(b.Bytes()) != want {
		t.Fatalf("got %q, want %q", b.Bytes(), want)
	}
}

func TestFillAppendsWhatArrives(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		var b netio.Buffer
		write(t, client, "one")
		fill(t, server, &b, "one")
		write(t, client, "two")
		fill(t, server, &b, "onetwo")
		b.Consume(6)
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := server.Fill(&b); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		if b.Holds() {
			t.Error("an empty buffer holds memory")
		}
		write(t, server, "answer after half-close")
		var back netio.Buffer
		fill(t, client, &back, "answer after half-close")
	})
}

func TestWriteFillIsARoundTrip(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		go func() { _, _ = io.Copy(server, server) }()
		for i := range 50 {
			var b netio.Buffer
			msg := strings.Repeat("ping", i+1)
			if err := client.WriteFill([]byte(msg), &b); err != nil {
				t.Fatal(err)
			}
			fill(t, client, &b, msg)
			b.Release()
		}
	})
}

func TestAWaitHoldsNoMemory(t *testing.T) {
	client, server := streamtest.TCP(t)
	defer client.Close()
	defer server.Close()
	var b netio.Buffer
	done := make(chan error)
	go func() { done <- server.Fill(&b) }()
	// The goroutine parks: its buffer must be gone by then. A deadline wakes it without data.
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := <-done; !netio.IsTimeout(err) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if b.Holds() {
		t.Error("the buffer holds memory after a wait")
	}
}

func TestLargeWritesInPartsArriveInOrder(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		head, tail := []byte("head|"), []byte("|tail")
		var want []byte
		var wg sync.WaitGroup
		sizes := []int{0, 1, 16379, 16384, 70_000, 3_000_000}
		for _, n := range sizes {
			want = append(append(append(want, head...), bytes.Repeat([]byte{'x'}, n)...), tail...)
		}
		wg.Go(func() {
			for _, n := range sizes {
				if err := client.WriteParts(head, bytes.Repeat([]byte{'x'}, n), tail); err != nil {
					t.Error(err)
				}
			}
			_ = client.CloseWrite()
		})
		got, err := io.ReadAll(server)
		wg.Wait()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
		}
		if n := client.BytesWritten(); n != uint64(len(want)) {
			t.Errorf("written %d, want %d", n, len(want))
		}
		if n := server.BytesRead(); n != uint64(len(want)) {
			t.Errorf("read %d, want %d", n, len(want))
		}
	})
}

func TestPeekedBytesAreReadAgain(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		write(t, client, "PRI * HTTP/2.0")
		p, err := server.Peek(3)
		if err != nil || !strings.HasPrefix("PRI * HTTP/2.0", string(p)) || len(p) < 3 {
			t.Fatalf("%q %v", p, err)
		}
		if _, ok := server.TCP(); ok {
			t.Error("the socket may be spliced although bytes were read ahead")
		}
		var b netio.Buffer
		fill(t, server, &b, "PRI * HTTP/2.0")
		write(t, client, "rest")
		if _, err := server.Peek(4); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2)
		if n, err := server.Read(got); n != 2 || err != nil || string(got) != "re" {
			t.Fatalf("%q %v", got[:n], err)
		}
		b.Consume(b.Len())
		fill(t, server, &b, "st")
		_ = client.CloseWrite()
		if p, err := server.Peek(1); err != io.EOF || len(p) != 0 {
			t.Errorf("%q %v", p, err)
		}
		if _, err := server.Peek(netio.BufferSize + 1); err == nil {
			t.Error("peeked beyond the buffer")
		}
	})
}

func TestPeekBeforeTLS(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) (client, server *netio.Conn){"TCP": streamtest.TCP, "in memory": streamtest.Memory} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			defer client.Close()
			defer server.Close()
			done := make(chan error, 1)
			go func() {
				if p, err := server.Peek(5); err != nil || p[0] != 0x16 {
					done <- errors.New("no client hello")
					return
				}
				done <- server.StartTLSServer(t.Context(), streamtest.ServerTLS())
			}()
			if err := client.StartTLSClient(t.Context(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if server.TLSState() == nil || server.TLSState().Version != tls.VersionTLS13 {
				t.Error("no TLS state")
			}
			write(t, client, "GET /")
			if p, err := server.Peek(4); err != nil || string(p) != "GET /" {
				t.Errorf("%q %v", p, err)
			}
			if err := client.StartTLSClient(t.Context(), &tls.Config{}); !errors.Is(err, netio.ErrTLSStarted) {
				t.Error(err)
			}
		})
	}
}

func TestAHandshakeEndsWithItsContext(t *testing.T) {
	client, server := streamtest.TCP(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := server.StartTLSServer(ctx, streamtest.ServerTLS()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := server.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection is still open: %v", err)
	}
}

func TestTLSSurvivesReadTimeoutsAndSlowReaders(t *testing.T) {
	client, server := streamtest.TLS(t)
	defer client.Close()
	defer server.Close()
	var b netio.Buffer
	for range 3 {
		_ = server.SetReadDeadline(time.Now().Add(time.Millisecond))
		if err := server.Fill(&b); !netio.IsTimeout(err) {
			t.Fatal(err)
		}
	}
	_ = server.SetReadDeadline(time.Time{})
	want := bytes.Repeat([]byte("0123456789"), 1_000_000) // far beyond the socket buffers: writes must park
	go func() {
		_, _ = client.Write(want)
		_ = client.CloseWrite()
	}()
	var got []byte
	for {
		err := server.Fill(&b)
		got = append(got, b.Bytes()...)
		b.Consume(b.Len())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d", len(got), len(want))
	}
}

func TestGoneAndQuiet(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		if server.Gone() || !server.Quiet() || client.Gone() || !client.Quiet() {
			t.Fatal("an idle connection is not quiet")
		}
		write(t, client, "x")
		eventually(t, "a byte is noticed", func() bool { return !server.Quiet() })
		if server.Gone() {
			t.Error("gone with a byte to read")
		}
		_ = client.Close()
		if _, ok := server.RemoteAddr().(*net.TCPAddr); ok && server.Socket() != nil {
			eventually(t, "the end behind the byte is noticed", server.Gone)
		}
	})
	each(t, func(t *testing.T, client, server *netio.Conn) {
		_ = client.Close()
		eventually(t, "the end is noticed", func() bool { return !server.Quiet() })
	})
	each(t, func(t *testing.T, client, server *netio.Conn) {
		client.Abort()
		eventually(t, "a reset is noticed", server.Gone)
		var b netio.Buffer
		if err := server.Fill(&b); err == nil || err == io.EOF && server.Socket() != nil {
			t.Errorf("after a reset: %v", err)
		}
	})
}

// TestWhoAsksWhetherItIsQuietLosesNothing: a server asks before it closes a connection that idles, and then serves what has come.
func TestWhoAsksWhetherItIsQuietLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		write(t, client, "hello")
		eventually(t, "what came is noticed", func() bool { return !server.Quiet() })
		if server.Quiet() {
			t.Error("quiet when asked again")
		}
		write(t, client, " again")
		_ = server.SetReadDeadline(time.Now().Add(10 * time.Second)) // for one that has lost a byte
		var b netio.Buffer
		for b.Len() < len("hello again") {
			if err := server.Fill(&b); err != nil {
				t.Fatal(err)
			}
		}
		if got := string(b.Bytes()); got != "hello again" || server.BytesRead() != uint64(len(got)) {
			t.Errorf("%q after %d bytes, want all", got, server.BytesRead())
		}
		if !server.Quiet() {
			t.Error("not quiet although all was read")
		}
	})
}

// eventually waits for the kernel to deliver.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error(what + ": it never was")
}

func TestCloseEndsWaits(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		var wg sync.WaitGroup
		wg.Go(func() {
			var b netio.Buffer
			if err := server.Fill(&b); err == nil {
				t.Error("a read of a closed connection returned bytes")
			}
		})
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for {
				if _, err := server.Write(buf); err != nil {
					return
				}
			}
		})
		time.Sleep(5 * time.Millisecond) // whether they wait already or not, they must end
		_ = server.Close()
		wg.Wait()
		if !server.Closed() {
			t.Error("not closed")
		}
	})
}

func TestAWriteThatStallsFails(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) (client, server *netio.Conn){"TCP": streamtest.TCP, "TLS": streamtest.TLS} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			defer client.Close()
			defer server.Close()
			client.SetWriteStall(20 * time.Millisecond)
			buf := make([]byte, 8<<20)
			if _, err := client.Write(buf); !netio.IsTimeout(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestABufferGrowsToItsLimit(t *testing.T) {
	client, server := streamtest.TCP(t)
	defer client.Close()
	defer server.Close()
	go func() { _, _ = client.Write(make([]byte, 200<<10)) }()
	var b netio.Buffer
	b.SetLimit(60 << 10)
	for {
		err := server.Fill(&b)
		if errors.Is(err, netio.ErrBufferFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() != 60<<10 {
		t.Errorf("full at %d", b.Len())
	}
	b.Consume(1)
	if err := server.Fill(&b); err != nil || b.Len() != 60<<10 {
		t.Errorf("after making room: %d, %v", b.Len(), err)
	}
	b.Release()
	if b.Holds() || b.Len() != 0 {
		t.Error("released and not empty")
	}
}

func TestARoundTripDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("budgets are measured without the race detector")
	}
	client, server := streamtest.TCP(t)
	defer client.Close()
	go func() {
		var b netio.Buffer
		for {
			if server.Fill(&b) != nil {
				_ = server.Close()
				return
			}
			if server.WriteParts(b.Bytes(), nil, nil) != nil {
				return
			}
			b.Consume(b.Len())
		}
	}()
	var b netio.Buffer
	msg := make([]byte, 500)
	n := testing.AllocsPerRun(1000, func() {
		if !client.Quiet() {
			t.Fatal("not quiet")
		}
		if err := client.WriteFill(msg, &b); err != nil {
			t.Fatal(err)
		}
		for b.Len() < len(msg) {
			if err := client.Fill(&b); err != nil {
				t.Fatal(err)
			}
		}
		b.Consume(b.Len())
	})
	if n != 0 {
		t.Errorf("allocations per round trip: %v", n)
	}
}

func TestOnCloseRunsOnceOrNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch := make(chan struct{})
		var mu sync.Mutex
		got := map[string]int{}
		note := func(s string) func() {
			return func() {
				mu.Lock()
				defer mu.Unlock()
				got[s]++
			}
		}
		netio.OnClose(ch, note("a"))
		stop := netio.OnClose(ch, note("b"))
		netio.OnClose(nil, note("never"))()
		stop()
		stop()
		close(ch)
		synctest.Wait()
		late := netio.OnClose(ch, note("late"))
		synctest.Wait()
		late()
		mu.Lock()
		defer mu.Unlock()
		if got["a"] != 1 || got["b"] != 0 || got["late"] != 1 || got["never"] != 0 {
			t.Error(got)
		}
	})
}

func TestAWatchThatNobodyNeedsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble would not end with a goroutine left
		netio.OnClose(make(chan struct{}), func() {})()
	})
}

func TestErrorsKeepTheKernelsReason(t *testing.T) {
	client, server := streamtest.TCP(t)
	defer server.Close()
	client.Abort()
	eventually(t, "a reset arrives", server.Gone)
	var b netio.Buffer
	err := server.Fill(&b)
	var oe *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !netio.IsReset(err) || !errors.As(err, &oe) {
		t.Errorf("%v", err)
	}
}

func TestMemnetDeadlinesInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(memnet.Link{})
		client, server := netio.New(a), netio.New(b)
		defer client.Close()
		defer server.Close()
		start := time.Now()
		_ = server.SetReadDeadline(start.Add(time.Hour))
		if server.Gone() { // must put the deadline back
			t.Error("gone")
		}
		var buf netio.Buffer
		if err := server.Fill(&buf); !netio.IsTimeout(err) || time.Since(start) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, tr := range streamtest.Transports()[1:] {
		b.Run(tr.Name, func(b *testing.B) {
			client, server := tr.Pair(b)
			defer client.Close()
			go func() {
				var buf netio.Buffer
				for {
					if server.Fill(&buf) != nil {
						_ = server.Close()
						return
					}
					_, _ = server.Write(buf.Bytes())
					buf.Consume(buf.Len())
				}
			}()
			var buf netio.Buffer
			msg := make([]byte, 1000)
			b.ReportAllocs()
			for b.Loop() {
				if err := client.WriteFill(msg, &buf); err != nil {
					b.Fatal(err)
				}
				buf.Consume(buf.Len())
			}
		})
	}
}

func TestTLSDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector empties pools")
	}
	client, server := streamtest.TLS(t)
	defer func() { _ = client.Close(); _ = server.Close() }()
	head, body := make([]byte, 300), make([]byte, 1000)
	var in netio.Buffer
	got := testing.AllocsPerRun(200, func() {
		for _, dir := range [][2]*netio.Conn{{client, server}, {server, client}} {
			if err := dir[0].WriteParts(head, body, nil); err != nil {
				t.Fatal(err)
			}
			if err := dir[1].Fill(&in); err != nil || in.Len() != len(head)+len(body) {
				t.Fatalf("%d bytes, %v", in.Len(), err)
			}
			in.Release()
		}
	})
	if got > 0.1 {
		t.Errorf("%v allocations for a round trip", got)
	}
}
