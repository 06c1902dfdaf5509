package netio_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// TestWriteNowNeverWaits: a peer that does not read costs the writer no time, and nothing is lost or changes its order.
func TestWriteNowNeverWaits(t *testing.T) {
	each(t, func(t *testing.T, a, b *netio.Conn) {
		if !a.CanWriteNow() {
			return // in memory there is no socket to try; callers ask first
		}
		var want bytes.Buffer
		piece := make([]byte, 100<<10)
		for i := 0; ; i++ {
			for j := range piece {
				piece[j] = byte(i + j)
			}
			want.Write(piece)
			done, err := a.WriteNow(piece)
			if err != nil {
				t.Fatal(err)
			}
			if !done {
				break
			}
			if i > 1000 {
				t.Fatal("the kernel takes everything")
			}
		}
		kept := make(chan error, 1)
		go func() { kept <- a.WriteKept() }()
		got := make([]byte, want.Len())
		if _, err := io.ReadFull(b, got); err != nil {
			t.Fatal(err)
		}
		if err := <-kept; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Error("the bytes changed on their way")
		}
		if done, err := a.WriteNow([]byte("after")); !done || err != nil {
			t.Fatalf("after all was written: %v, %v", done, err)
		}
		if _, err := io.ReadFull(b, got[:5]); err != nil || string(got[:5]) != "after" {
			t.Errorf("%q, %v", got[:5], err)
		}
	})
}

// TestCloseDoesNotWaitForWhatIsKept: with TLS it says goodbye, and must not stand in line for that.
func TestCloseDoesNotWaitForWhatIsKept(t *testing.T) {
	each(t, func(t *testing.T, a, _ *netio.Conn) {
		if !a.CanWriteNow() {
			return // in memory there is no socket to try; callers ask first
		}
		for done := true; done; {
			var err error
			if done, err = a.WriteNow(make([]byte, 100<<10)); err != nil {
				t.Fatal(err)
			}
		}
		kept := make(chan error, 1)
		go func() { kept <- a.WriteKept() }()
		time.Sleep(20 * time.Millisecond) // it waits; if it does not yet, the test proves less
		closed := make(chan struct{})
		go func() { defer close(closed); _ = a.Close() }()
		for _, ch := range []func(){func() { <-closed }, func() { <-kept }} {
			over := time.AfterFunc(20*time.Second, func() { panic("Close waits for a peer that does not read") })
			ch()
			over.Stop()
		}
	})
}

func TestWhatWriteNowKeptEndsWithTheConnection(t *testing.T) {
	each(t, func(t *testing.T, a, b *netio.Conn) {
		if !a.CanWriteNow() {
			return // in memory there is no socket to try; callers ask first
		}
		a.SetWriteStall(50 * time.Millisecond)
		var err error
		for err == nil { // a kernel that is behind with its own work takes some more after it has taken nothing
			for done := true; done; {
				if done, err = a.WriteNow(make([]byte, 100<<10)); err != nil {
					t.Fatal(err)
				}
			}
			err = a.WriteKept()
		}
		if !netio.IsTimeout(err) {
			t.Errorf("a peer that takes nothing: %v", err)
		}
		a.SetWriteStall(0)
		b.Abort()
		if err := a.WriteKept(); err == nil {
			t.Error("the peer has cut the connection, and nobody is told")
		}
	})
}
