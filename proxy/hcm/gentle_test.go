package hcm

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"weft.mesh/weft/proxy/http1"
)

// A client that has connected and said nothing may be about to: its first request is served, as the last.
func TestAGentleDrainServesTheFirstRequestOfAConnection(t *testing.T) {
	l := newLoop(t, false, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }), nil)
	l.m.deps.DrainTime = func() time.Duration { return time.Hour }
	c, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(time.Minute); l.m.Stats.CxActive.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection is not served")
		}
	}
	close(l.drain)
	time.Sleep(http1.DefaultDrainIdle + 100*time.Millisecond) // a drain that is not gentle would have ended it now
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestAGentleDrainEndsWhoSaysNothingWhenItsTimeIsOver(t *testing.T) {
	l := newLoop(t, false, false, http.NotFoundHandler(), nil)
	l.m.deps.DrainTime = func() time.Duration { return http1.DefaultDrainIdle + 100*time.Millisecond }
	began := time.Now()
	c, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	close(l.drain)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || isTimeout(err) {
		t.Errorf("read = %d, %v: want an end", n, err)
	}
	if took := time.Since(began); took < http1.DefaultDrainIdle+100*time.Millisecond {
		t.Errorf("ended after %v", took)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
