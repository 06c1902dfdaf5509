package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// manyConns are open at once, if the descriptors suffice.
	manyConns = 10_000
	// settleWait is how long a proxy may take to give back what starting took: weft-proxy does 2 s after its last configuration.
	settleWait = 4 * time.Second
	// idleWait is how long a proxy may take to give back what its connections took.
	idleWait = 10 * time.Second
	// idleJobs are proxies that wait at the same time.
	idleJobs = 5
	// maxStarts bounds how often a proxy is started to see how long that takes.
	maxStarts = 5
)

// idleResult is memory, without load and with idle connections, and the time to start.
type idleResult struct {
	Peer  string          `json:"peer"`
	Kind  string          `json:"kind"`
	Conns int             `json:"connections,omitempty"`
	Start int64           `json:"rss_start_bytes"`              // some seconds after the first request, summed over a pair
	Idle  int64           `json:"idle_conn_bytes,omitempty"`    // for each of the idle connections that had one request
	Burst int64           `json:"idle_burst_bytes,omitempty"`   // idleWait after all had a request on the way at once
	Ready []time.Duration `json:"start_to_answer_ns,omitempty"` // start of the process to the first answer
	Why   string          `json:"missing,omitempty"`            // why there is nothing
}

// idleConns is how many connections one proxy can have with as many to its
// backend, and a few files besides.
func idleConns(quick bool) int {
	if quick {
		return 100
	}
	return min(manyConns, (descriptors()-200)/2)
}

// idle measures starts one after the other, then memory of several peers at the same time, as memory is mostly waiting.
func (b *bench) idle(ctx context.Context) ([]idleResult, error) {
	var out []idleResult
	for _, kind := range []string{kindH1, kindPair} {
		for _, p := range b.idlePeers() {
			r, err := b.starts(ctx, p, kind)
			if err != nil {
				return nil, fmt.Errorf("idle: %s: %w", p.name, err)
			}
			fmt.Fprintf(b.out, "start %-4s %-8s %s, %s\n", kind, p.name, mega(r.Start), milli(median(r.Ready)))
			out = append(out, r)
		}
	}
	rs, err := b.connections(ctx)
	return append(out, rs...), err
}

// idlePeers are the programs as they are by default: more workers wait as one does.
func (b *bench) idlePeers() []*peer {
	return slices.DeleteFunc(slices.Clone(b.peers), func(p *peer) bool { return p.variant() || p.program == directName || p.floor })
}

// starts measures how long a start takes, and what is resident after the last one.
func (b *bench) starts(ctx context.Context, p *peer, kind string) (idleResult, error) {
	res := idleResult{Peer: p.name, Kind: kind}
	for n := min(b.rounds, maxStarts); ; {
		r, err := b.env.start(p, kind)
		if err != nil {
			return res, err
		}
		res.Ready = append(res.Ready, r.ready)
		if len(res.Ready) == n {
			defer r.stop()
			err := pause(ctx, b.wait(settleWait))
			res.Start, _ = r.memory()
			return res, err
		}
		r.stop()
	}
}

// wait is shorter when only looking whether all works.
func (b *bench) wait(d time.Duration) time.Duration {
	if b.quick {
		return 100 * time.Millisecond
	}
	return d
}

// connections measures idle connections, plain and with mTLS.
func (b *bench) connections(ctx context.Context) ([]idleResult, error) {
	var (
		out  []idleResult
		mu   sync.Mutex // one at a time does something
		errs = make(chan error, 1)
		room = make(chan struct{}, idleJobs)
		wg   sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, kind := range []string{kindH1, kindTLS} {
		for _, p := range b.idlePeers() {
			out = append(out, idleResult{Peer: p.name, Kind: kind, Conns: idleConns(b.quick), Why: p.cannot[kind]})
		}
	}
	for i := range out {
		r := &out[i]
		if r.Why != "" {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			p := b.idlePeers()[i%len(b.idlePeers())]
			if err := b.connected(ctx, p, r, &mu); err != nil {
				report(errs, fmt.Errorf("idle: %s: %s: %w", p.name, r.Kind, err))
				cancel()
				return
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(b.out, "idle %-4s %-8s %d connections: %s each, after a burst %s\n", r.Kind, p.name, r.Conns, kilo(r.Idle), kilo(r.Burst))
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return nil, err
	default:
		return out, nil
	}
}

// connected measures one peer. mu is held while something happens, not while waiting.
func (b *bench) connected(ctx context.Context, p *peer, res *idleResult, mu *sync.Mutex) error {
	backend, err := startWorker("backend")
	if err != nil {
		return err
	}
	defer backend.stop()
	line, err := backend.line()
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(line)
	if err != nil {
		return err
	}
	clients, err := startWorker("clients")
	if err != nil {
		return err
	}
	defer clients.stop()
	mu.Lock()
	r, err := b.env.startTo(p, res.Kind, port, true)
	mu.Unlock()
	if err != nil {
		return err
	}
	defer r.stop()
	if err := pause(ctx, b.wait(settleWait)); err != nil {
		return err
	}
	res.Start, _ = r.memory()
	o := order{Op: "open", Addr: r.at.addr, N: res.Conns}
	if res.Kind == kindTLS {
		o.Cert, o.Key, o.Roots = b.env.clientFiles(p, clientAccount)
	}
	if res.Idle, err = b.growth(ctx, r, res, mu, clients, o); err != nil {
		return err
	}
	res.Burst, err = b.growth(ctx, r, res, mu, clients, order{Op: "burst"})
	return err
}

// growth has clients do something, waits, and returns how much more memory than at the start is resident for each connection.
func (b *bench) growth(ctx context.Context, r *running, res *idleResult, mu *sync.Mutex, clients *worker, o order) (int64, error) {
	mu.Lock()
	err := ctx.Err()
	if err == nil {
		err = clients.tell(o)
	}
	mu.Unlock()
	if err != nil {
		return 0, err
	}
	err = pause(ctx, b.wait(idleWait))
	now, _ := r.memory()
	if dead := r.dead(); dead != nil {
		return 0, dead
	}
	return (now - res.Start) / int64(res.Conns), err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
