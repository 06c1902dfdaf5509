package http2

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio"
	msg "weft.mesh/weft/proxy/stream"
)

// TestWindowsSurviveEveryWayToLeave: streams end in all ways at any moment; afterwards the
// connection must be as good as new, or flow control would have leaked.
func TestWindowsSurviveEveryWayToLeave(t *testing.T) {
	addr := listen(t, ServerOptions{StreamWindow: 65535, ConnWindow: 100_000}, func(ctx context.Context, s msg.Server) {
		switch string(s.Request().Fields.Get("x-do")) {
		case "abort":
			_, _ = s.ReadBody()
			s.Abort()
		case "ignore":
			_ = s.WriteHead(&msg.Response{Status: 200, ContentLength: 3}, false)
			_ = s.WriteBody([]byte("abc"), true)
		case "give up":
		default:
			echo(ctx, s)
		}
	})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := NewClientConn(t.Context(), netio.New(nc), &msg.ConnInfo{}, ClientOptions{StreamWindow: 65535, ConnWindow: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range 25 {
				churn(cc, r)
			}
		})
	}
	wg.Wait()
	if err := cc.Err(); err != nil {
		t.Fatal(err)
	}
	if n := cc.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	for range 3 {
		x, err := cc.Start()
		if err != nil {
			t.Fatal(err)
		}
		x.SetDeadline(time.Now().Add(20 * time.Second))
		if err := x.WriteHead(&msg.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a"), ContentLength: 1 << 20}, false); err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("x"), 1<<20)
		wg.Go(func() { _ = x.WriteBody(want, true) })
		if _, err := x.ReadHead(); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for {
			p, err := x.ReadBody()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", len(got), err)
			}
			got = append(got, p...)
		}
		wg.Wait()
		x.Close()
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes", len(got))
		}
	}
	cc.mu.Lock()
	if len(cc.streams) != 0 || cc.blocked != 0 || cc.running != 0 {
		t.Errorf("%d streams in the table, %d blocked, %d running", len(cc.streams), cc.blocked, cc.running)
	}
	cc.mu.Unlock()
	cc.Close()
	<-cc.Done()
}

// churn runs one exchange that may end at any point.
func churn(cc *ClientConn, r *rand.Rand) {
	x, err := cc.Start()
	if err != nil {
		return
	}
	req := &msg.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a"), ContentLength: msg.UnknownLength}
	req.Fields.Add("x-do", []string{"abort", "ignore", "give up", "echo", "echo"}[r.IntN(5)])
	body := make([]byte, r.IntN(200_000))
	leave, wait := r.IntN(4), time.Duration(r.IntN(3000))*time.Microsecond
	if r.IntN(3) == 0 {
		x.SetDeadline(time.Now().Add(wait))
	}
	if x.WriteHead(req, false) != nil || leave == 0 {
		x.Close()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = x.WriteBody(body, true) })
	if _, err := x.ReadHead(); err == nil && leave > 1 {
		for n := 0; ; n++ {
			if _, err := x.ReadBody(); err != nil || leave == 2 && n > 2 {
				break
			}
		}
	}
	x.SetDeadline(time.Unix(1, 0)) // the other goroutine may still write: an exchange is closed when nobody uses it
	wg.Wait()
	x.Close()
}
