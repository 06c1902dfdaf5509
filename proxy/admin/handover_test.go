package admin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
)

// handed is a server in memory that is to hand over.
type handed struct {
	t    *testing.T
	s    *Server
	net  *memnet.Network
	end  context.CancelFunc
	done chan error
}

func startHanded(t *testing.T, healthy func() (bool, string)) *handed {
	t.Helper()
	h := &handed{t: t, net: memnet.New(memnet.Link{}), done: make(chan error, 1)}
	var err error
	h.s, err = New(Settings{Ready: "127.0.0.1:15021", Healthy: healthy, Listen: func(_, address string) (net.Listener, error) { return h.net.Listen(address) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h.end = cancel
	go func() { h.done <- h.s.Run(ctx) }()
	return h
}

// dial connects, and waits until the connection is accepted.
func (h *handed) dial() net.Conn {
	h.t.Helper()
	c, err := h.net.Dial("127.0.0.1:15021")
	if err != nil {
		h.t.Fatal(err)
	}
	synctest.Wait()
	return c
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// answered tells that the answer is complete and the connection ends with it.
func (h *handed) answered(c net.Conn) {
	h.t.Helper()
	rd := bufio.NewReader(c)
	resp, err := http.ReadResponse(rd, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 {
		h.t.Errorf("%s, %v", resp.Status, err)
	}
	if _, err := rd.ReadByte(); err != io.EOF {
		h.t.Errorf("the connection goes on: %v", err)
	}
	if err := <-h.done; err != nil {
		h.t.Errorf("Run = %v", err)
	}
}

func TestHandOverStopsAcceptingAndFinishesWhatWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		h := startHanded(t, func() (bool, string) { <-finish; return true, "" })
		c := h.dial()
		defer func() { _ = c.Close() }()
		ask(t, c)
		synctest.Wait() // until it is being served
		h.s.HandOver()
		if c, err := h.net.Dial("127.0.0.1:15021"); err == nil {
			_ = c.Close()
			t.Error("accepts after HandOver")
		}
		h.end()
		time.Sleep(shutdownTime + 200*time.Millisecond) // of fake time: longer than an ordinary end would wait
		close(finish)
		h.answered(c)
	})
}

func TestARequestThatComesAfterHandOverOnAConnectionFromBeforeIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHanded(t, func() (bool, string) { return true, "" })
		c := h.dial()
		defer func() { _ = c.Close() }()
		h.s.HandOver()
		h.end()
		time.Sleep(100 * time.Millisecond) // of fake time: until the end has begun
		ask(t, c)
		h.answered(c)
	})
}
