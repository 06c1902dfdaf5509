package hcm

import (
	"context"
	"testing"
)

// reader is an exchange whose handler runs where it must not wait.
type reader struct {
	*fakeServer
	passed bool
}

func (r *reader) Block() { r.passed = true }

// An upstream of another protocol may take its time with a request; whoever reads the client's connection does not wait for that.
func TestWhoeverReadsDoesNotWriteWhereItMayHaveToWait(t *testing.T) {
	var s *reader
	h := newHarness(t, func(int, *seen) answer { return answer{status: 200} })
	writes := 0
	h.backend.write = func() {
		writes++
		if !s.passed {
			t.Error("writes before somebody else reads")
		}
	}
	h.start(nil)
	for range 3 { // all but the first on a connection that is there
		s = &reader{fakeServer: newServer("POST", "/").withBody("hello")}
		h.m.connection(context.Background(), h.info).handle(context.Background(), s)
		if s.status != 200 {
			t.Errorf("status %d", s.status)
		}
	}
	if writes != 3 {
		t.Errorf("%d written", writes)
	}
}
