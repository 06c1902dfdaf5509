package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (f fakeStream) Context() context.Context { return f.ctx }

func TestAHerdIsLetInAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(100)
		ctx, cancel := context.WithCancel(t.Context())
		in, late := make(chan time.Duration, 1000), make(chan error, 1000)
		began := time.Now()
		for range 1000 {
			go func() {
				err := g.intercept(nil, fakeStream{ctx: ctx}, nil, func(_ any, ss grpc.ServerStream) error {
					in <- time.Since(began)
					<-ss.Context().Done()
					return nil
				})
				if status.Code(err) == codes.Unavailable {
					late <- err
				}
			}()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// 100 at once, and 100 a second for the time that one waits.
		if n := len(in); n < 550 || n > 620 {
			t.Errorf("%d streams were let in within %s", n, admissionWait)
		}
		if n := len(in) + len(late); n != 1000 {
			t.Errorf("%d of 1000 had an answer", n)
		}
		cancel()
		synctest.Wait()
	})
}

func TestStreamsLeaveOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(0)
		began := time.Now()
		left := make(chan time.Duration, 100)
		for range 100 {
			go func() {
				err := g.intercept(nil, fakeStream{ctx: t.Context()}, nil, func(_ any, ss grpc.ServerStream) error {
					<-ss.Context().Done()
					left <- time.Since(began)
					return ss.Context().Err()
				})
				if status.Code(err) != codes.Unavailable {
					t.Errorf("a stream that is sent away ends with %v", err)
				}
			}()
		}
		synctest.Wait()
		g.drain(t.Context(), 10*time.Second)
		synctest.Wait()
		close(left)
		half, n := 0, 0
		for d := range left {
			n++
			if d <= 5*time.Second {
				half++
			}
		}
		if n != 100 || half < 45 || half > 55 {
			t.Errorf("%d left, %d of them in the first half", n, half)
		}
		if err := g.intercept(nil, fakeStream{ctx: t.Context()}, nil, nil); status.Code(err) != codes.Unavailable {
			t.Errorf("one more is let in: %v", err)
		}
	})
}
