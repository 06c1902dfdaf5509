package http2

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	msg "weft.mesh/weft/proxy/stream"
)

// sum adds up the WINDOW_UPDATE frames of a stream that have come.
func (w *wire) sum(id uint32) (n int) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.log {
		var at uint32
		var by int
		if _, err := fmt.Sscanf(l, "WINDOW %d %d", &at, &by); err == nil && at == id {
			n += by
		}
	}
	return n
}

// upload sends n bytes on a stream, as fast as the peer reads.
func (w *wire) upload(id uint32, n int) {
	for ; n > 0; n -= 16 << 10 {
		_ = w.fr.WriteData(id, false, make([]byte, 16<<10))
	}
	synctest.Wait()
}

func TestAStreamsWindowGrowsWithTheDistance(t *testing.T) {
	for name, tc := range map[string]struct {
		o     ServerOptions
		rtt   time.Duration
		grows bool
	}{
		"a peer far away":      {rtt: 200 * time.Millisecond, grows: true},
		"a peer nearby":        {rtt: time.Millisecond},
		"a window configured":  {rtt: 200 * time.Millisecond, o: ServerOptions{StreamWindow: DefaultStreamWindow}},
		"a distance not known": {},
	} {
		t.Run(name, func(t *testing.T) {
			var s *serverStream
			h := func(_ context.Context, srv msg.Server) {
				s = srv.(*serverStream)
				s.c.mu.Lock()
				s.c.rtt = func() time.Duration { return tc.rtt }
				s.c.mu.Unlock()
				for {
					if _, err := s.ReadBody(); err != nil {
						return
					}
				}
			}
			withServer(t, tc.o, h, func(t *testing.T, w *wire) {
				w.headers(1, false, post...)
				synctest.Wait()
				for range 100 { // 1.6 MB/s: half a window takes 80 ms
					w.upload(1, 16<<10)
					time.Sleep(10 * time.Millisecond)
				}
				s.c.mu.Lock()
				window, open := s.window, s.recvWin
				s.c.mu.Unlock()
				if grown := window > DefaultStreamWindow; grown != tc.grows || window > mostStreamWindow {
					t.Errorf("window of %d bytes", window)
				}
				if sent := 100 * 16 << 10; DefaultStreamWindow+w.sum(1)-sent != open {
					t.Errorf("the peer may send %d bytes, and we take %d", DefaultStreamWindow+w.sum(1)-sent, open)
				}
			})
		})
	}
}

// TestAStreamThatNobodyReadsHoldsItsFirstWindowOnly: growing is for those who read.
func TestAStreamThatNobodyReadsHoldsItsFirstWindowOnly(t *testing.T) {
	var s *serverStream
	h := func(ctx context.Context, srv msg.Server) {
		s = srv.(*serverStream)
		s.c.mu.Lock()
		s.c.rtt = func() time.Duration { return 2 * time.Second }
		s.c.mu.Unlock()
		for range 20 { // slower than the peer
			_, _ = s.ReadBody()
			time.Sleep(time.Second)
		}
		<-s.Done()
	}
	withServer(t, ServerOptions{}, h, func(t *testing.T, w *wire) {
		w.headers(1, false, post...)
		synctest.Wait()
		w.upload(1, DefaultStreamWindow)
		time.Sleep(time.Minute)
		w.upload(1, w.sum(1))
		time.Sleep(time.Minute)
		s.c.mu.Lock()
		window := s.window
		s.c.mu.Unlock()
		if window != DefaultStreamWindow {
			t.Errorf("window of %d bytes", window)
		}
	})
}

// TestStreamsThatNobodyReadsDoNotCloseTheConnectionForOthers: the upstream's connection is shared.
func TestStreamsThatNobodyReadsDoNotCloseTheConnectionForOthers(t *testing.T) {
	h := func(ctx context.Context, s msg.Server) {
		if string(s.Request().Path) == "/stuck" {
			<-s.Done()
			return
		}
		for {
			if _, err := s.ReadBody(); err == io.EOF {
				break
			} else if err != nil {
				return
			}
		}
		_ = s.WriteHead(&msg.Response{Status: 200}, true)
	}
	withServer(t, ServerOptions{}, h, func(t *testing.T, w *wire) {
		id := uint32(1)
		for range 8 {
			w.headers(id, false, ":method", "POST", ":scheme", "http", ":path", "/stuck", ":authority", "a")
			w.upload(id, DefaultStreamWindow)
			id += 2
		}
		if got, used := DefaultConnWindow+w.sum(0)-(DefaultConnWindow-initialWindow), 8*DefaultStreamWindow; got < used {
			t.Fatalf("the connection lets %d bytes through, %d were sent", got, used)
		}
		w.headers(id, false, post...)
		w.upload(id, 128<<10)
		_ = w.fr.WriteData(id, true, nil)
		if !w.has(fmt.Sprintf("HEADERS %d :status=200", id)) {
			t.Errorf("%q", w.frames())
		}
	})
}
