package http1

import (
	"context"
	"fmt"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// TestAnIdleConnectionIsCheap holds the budget of an idle connection: 6 KB with its
// goroutine, after it has served a request.
func TestAnIdleConnectionIsCheap(t *testing.T) {
	if raceDetector {
		t.Skip("budgets are measured without the race detector")
	}
	const conns = 500
	drain := make(chan struct{})
	addr := listen(t, ServerOptions{IdleTimeout: time.Hour, Drain: drain}, func(_ context.Context, s stream.Server) {
		_ = s.WriteHead(&stream.Response{Status: 204}, true)
	})
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	dial := func() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		nc := netio.New(c)
		var b netio.Buffer
		if err := nc.WriteFill([]byte("GET / HTTP/1.1\r\nHost: a\r\nX-Some: field\r\n\r\n"), &b); err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	for range 20 {
		dial()
	}
	// What the runtime holds beyond what is used differs by 5 % from round to round, so the least of some rounds counts.
	const most, rounds = 8 << 10, 5
	each := int64(math.MaxInt64)
	for round := 0; round < rounds && each > most; round++ {
		before := used()
		for range conns {
			dial()
		}
		each = min(each, int64(used()-before)/conns)
	}
	t.Log(fmt.Sprint("bytes for each idle connection, the client's end included: ", each))
	if each > most {
		t.Errorf("an idle connection holds %d bytes", each)
	}
}
