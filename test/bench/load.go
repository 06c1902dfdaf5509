package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout is how long a response may take before a run is given up.
const answerTimeout = 10 * time.Second

// sample is what one run of a load saw. Requests counts right answers only; a
// wrong one fails the run.
type sample struct {
	Requests int
	Bytes    int64 // bulk only
	Elapsed  time.Duration
	P50, P99 time.Duration
}

// load keeps its connections open between runs.
type load interface {
	run(ctx context.Context, d time.Duration) (sample, error)
	close()
}

// opener connects a load to a proxy.
type opener func(at target) (load, error)

// summary makes a sample from latencies in nanoseconds.
func summary(lat []int64, elapsed time.Duration) sample {
	slices.Sort(lat)
	s := sample{Requests: len(lat), Elapsed: elapsed}
	if n := len(lat); n > 0 {
		s.P50, s.P99 = time.Duration(lat[n/2]), time.Duration(lat[min(n-1, n*99/100)])
	}
	return s
}

// paced is a connection of an open loop.
type paced interface {
	// send writes one request that was due at a time; the answer comes to the pacer's free channel.
	send(due time.Time) error
}

// pacer sends requests at times fixed beforehand.
type pacer[C paced] struct {
	rate int        // requests/s
	free chan C     // connections without a request on the way
	fail chan error // first error of a reader
	lat  chan int64 // latencies, ns
}

// maxRun bounds a run of an open loop.
const maxRun = 30 * time.Second

func newPacer[C paced](rate, conns int) *pacer[C] {
	return &pacer[C]{
		rate: rate, free: make(chan C, conns), fail: make(chan error, 1),
		lat: make(chan int64, rate*int(maxRun/time.Second)),
	}
}

// answered notes an answer and makes the connection free.
func (p *pacer[C]) answered(c C, due time.Time) {
	p.lat <- int64(time.Since(due))
	p.free <- c
}

// run sends for d. A request that finds no free connection waits, and the wait is part of its latency.
func (p *pacer[C]) run(ctx context.Context, d time.Duration) (sample, error) {
	n := int(min(d, maxRun).Seconds() * float64(p.rate))
	start := time.Now()
	if err := p.send(ctx, n, start); err != nil {
		return sample{}, err
	}
	lat := make([]int64, 0, n)
	for len(lat) < n {
		select {
		case v := <-p.lat:
			lat = append(lat, v)
		case err := <-p.fail:
			return sample{}, err
		case <-time.After(answerTimeout):
			return sample{}, fmt.Errorf("open loop: %d of %d answers are missing after %v", n-len(lat), n, answerTimeout)
		}
	}
	return summary(lat, time.Since(start)), nil
}

// send keeps a thread with exact timers for itself.
func (p *pacer[C]) send(ctx context.Context, n int, start time.Time) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // ns; at worst timers are 50 µs late
	gap := time.Second / time.Duration(p.rate)
	for i := range n {
		due := start.Add(time.Duration(i) * gap)
		sleepUntil(due)
		select {
		case c := <-p.free:
			if err := c.send(due); err != nil {
				return err
			}
		case err := <-p.fail:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerTimeout):
			return fmt.Errorf("open loop: all %d connections wait for an answer since %v", cap(p.free), answerTimeout)
		}
	}
	return nil
}

// sleepUntil sleeps in the kernel: the runtime's timers are up to a millisecond late.
func sleepUntil(t time.Time) {
	if d := time.Until(t); d > 0 {
		ts := unix.NsecToTimespec(int64(d))
		unix.Nanosleep(&ts, nil)
	}
}

// report notes an error if none is noted yet.
func report(fail chan error, err error) {
	select {
	case fail <- err:
	default:
	}
}
