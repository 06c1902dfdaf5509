package http2

import (
	"runtime"

	"weft.mesh/weft/proxy/netio"
)

// maxIdleWorkers is how many goroutines of a connection wait for the next job.
const maxIdleWorkers = 8

// job is what a worker does: to run the handler of a stream, or to read the connection.
type job struct {
	s    *serverStream
	turn *turn
}

// A connection that begins many streams at once lets others go first after some: those that run here,
// after turnStreams whoever can run, after turnLooks whoever the network has something for; those that workers run, which
// have all of their work before them then, after turnWorkers.
const (
	turnStreams = 8
	turnLooks   = 32
	turnWorkers = 4
)

// runAll runs the handlers of requests that have come whole. Others, who will wait for the rest, go to workers.
func (sc *serverConn) runAll(t *turn) {
	for n, workers := 1, 0; !t.passed && sc.runAt < len(sc.runs); n++ {
		switch {
		case workers == turnWorkers, n%turnLooks == 0:
			workers = 0
			netio.GiveWay()
		case n%turnStreams == 0:
			runtime.Gosched()
		}
		s := sc.runs[sc.runAt]
		sc.runs[sc.runAt] = nil
		if sc.runAt++; sc.runAt == len(sc.runs) {
			sc.runs, sc.runAt = sc.runs[:0], 0
		}
		if s.remoteEnd || s.reset != nil { // only the reader has written them so far
			sc.run(s, t)
			continue
		}
		sc.mu.Lock()
		sc.dispatch(s)
		sc.mu.Unlock()
		workers++
	}
}

// run runs a handler, up to the end of the exchange or until it awaits its upstream.
func (sc *serverConn) run(s *serverStream, t *turn) {
	s.turn = t
	if t != nil {
		t.parked = false
	}
	sc.h(sc.ctx, s)
	if t != nil && t.parked {
		return
	}
	sc.mu.Lock()
	sc.close(s)
	sc.mu.Unlock()
}

// dispatch lets a worker run a handler. mu is held.
func (sc *serverConn) dispatch(s *serverStream) { sc.give(job{s: s}) }

// give gives a job to a waiting worker, or a new one. mu is held.
func (sc *serverConn) give(j job) {
	if n := len(sc.idlers); n > 0 {
		w := sc.idlers[n-1]
		sc.idlers = sc.idlers[:n-1]
		w <- j // has room: only idle workers are in the list
		return
	}
	sc.workers.Add(1)
	go func() {
		defer sc.workers.Done()
		sc.serve(j)
	}()
}

// readElsewhere lets a worker read.
func (sc *serverConn) readElsewhere(t *turn) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.give(job{turn: t})
}

// serve does jobs until the connection ends or enough others wait.
func (sc *serverConn) serve(j job) {
	var next chan job
	for ok := true; ok; {
		if j.turn == nil {
			sc.run(j.s, nil)
		} else if err := sc.loop(j.turn); err != errPassed {
			sc.finish(err)
			return
		}
		sc.mu.Lock()
		if sc.err != nil || len(sc.idlers) >= maxIdleWorkers {
			sc.mu.Unlock()
			return
		}
		if next == nil {
			next = make(chan job, 1)
		}
		sc.idlers = append(sc.idlers, next)
		sc.mu.Unlock()
		j, ok = <-next
	}
}
