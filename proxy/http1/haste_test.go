package http1

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// hasty is a connection whose parking is told, in fake time.
type hasty struct {
	t      *testing.T
	client io.ReadWriteCloser
	parks  chan func() // what wakes it
	wake   func()      // set while it is parked
}

func startHasty(t *testing.T, o ServerOptions) *hasty {
	a, b := memnet.Pipe(memnet.Link{})
	h := &hasty{t: t, client: a, parks: make(chan func(), 1)}
	o.Park = func(_ *netio.Conn, _ time.Time, wake func()) bool {
		h.parks <- wake
		return true
	}
	done := make(chan struct{})
	go Serve(t.Context(), netio.New(b), o, func(_ context.Context, s stream.Server) {
		_ = s.WriteHead(&stream.Response{Status: 204}, true)
	}, func(error) { close(done) })
	t.Cleanup(func() {
		_ = a.Close()
		if h.wake != nil {
			go h.wake()
		}
		<-done
	})
	return h
}

// ask sends requests at the same time and reads the answers.
func (h *hasty) ask(n int) {
	h.t.Helper()
	if h.wake != nil {
		go h.wake()
		h.wake = nil
	}
	for range n {
		_, _ = io.WriteString(h.client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	for range n {
		if _, err := io.ReadFull(h.client, make([]byte, len("HTTP/1.1 204 No Content\r\n\r\n"))); err != nil {
			h.t.Fatal(err)
		}
	}
}

// parked is how long the connection has waited awake. Park is called under a lock that is free only when Serve has returned.
func (h *hasty) parked() time.Duration {
	began := time.Now()
	h.wake = <-h.parks
	synctest.Wait()
	return time.Since(began)
}

func TestAConnectionIsParkedSoonUntilItIsSeenToBeUsed(t *testing.T) {
	const soon, late = DefaultParkAfter / haste, DefaultParkAfter
	for name, o := range map[string]ServerOptions{
		"an hour to idle":  {IdleTimeout: time.Hour},
		"half a minute":    {IdleTimeout: 30 * time.Second}, // its clock is read for each request
		"no end of idling": {},
	} {
		t.Run(name, func(t *testing.T) {
			within := func(t *testing.T, what string, awake, most time.Duration) {
				t.Helper()
				if awake < most/2 || awake > most {
					t.Errorf("%s: parked after %v, want %v to %v", what, awake, most/2, most)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				h := startHasty(t, o)
				within(t, "before it has asked anything", h.parked(), late)
				h.ask(1)
				within(t, "after its first request", h.parked(), soon)
				for range 3 {
					time.Sleep(2 * late) // of fake time, as all sleeps here
					h.ask(1)
					within(t, "after one request in a while", h.parked(), soon)
				}
				time.Sleep(late / 2) // so it had better stayed awake
				h.ask(1)
				within(t, "after it was parked too soon", h.parked(), late)
				time.Sleep(2 * late)
				h.ask(1)
				within(t, "later", h.parked(), late)
			})
		})
	}
}

// Its first request comes at once: the look that was due for a connection that asks nothing is for later.
func TestAConnectionIsParkedSoonAfterItsFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHasty(t, ServerOptions{IdleTimeout: time.Hour})
		h.ask(1)
		if awake := h.parked(); awake > DefaultParkAfter/haste {
			t.Errorf("parked after %v", awake)
		}
	})
}

func TestAConnectionThatIsUsedIsNotParkedInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHasty(t, ServerOptions{IdleTimeout: time.Hour})
		for range 10 {
			h.ask(2)
			time.Sleep(DefaultParkAfter / haste / 8)
		}
		for range 10 {
			h.ask(1)
			time.Sleep(DefaultParkAfter / 3)
		}
		if len(h.parks) > 0 {
			t.Error("parked")
		}
	})
}
