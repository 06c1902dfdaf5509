package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	caseIdle = "idle"
	// idleConns are open at once; the proxy's descriptors limit them.
	idleConns = 2000
	// idleWait is how long a proxy may take to give memory back: weft-proxy does 2 s after its last configuration.
	idleWait = 4 * time.Second
)

// idleResult is memory, without load and with idle connections, and the time to start.
type idleResult struct {
	Peer  string          `json:"peer"`
	Kind  string          `json:"kind"`
	Start int64           `json:"rss_start_bytes"`    // after the first request, summed over a pair
	Idle  int64           `json:"idle_conn_bytes"`    // for each of the idle connections that had one request
	Burst int64           `json:"idle_burst_bytes"`   // the same after all had a request at once
	Ready []time.Duration `json:"start_to_answer_ns"` // start of the process to the first answer
}

// idle measures each peer alone. The pair's connections idle at its plaintext entry.
func (b *bench) idle(ctx context.Context) ([]idleResult, error) {
	var out []idleResult
	for _, kind := range []string{kindH1, kindPair} {
		for _, p := range b.peers {
			if !slices.Contains(p.kinds, kind) {
				continue
			}
			r, err := b.idleOne(ctx, p, kind)
			if err != nil {
				return nil, fmt.Errorf("idle: %s: %w", p.name, err)
			}
			fmt.Fprintf(b.out, "idle %-4s %-8s start %s, %s; each idle connection %s, after a burst %s\n", kind, p.name,
				mega(r.Start), milli(median(r.Ready)), kilo(r.Idle), kilo(r.Burst))
			out = append(out, r)
		}
	}
	return out, nil
}

func (b *bench) idleOne(ctx context.Context, p *peer, kind string) (idleResult, error) {
	res := idleResult{Peer: p.name, Kind: kind}
	for range b.rounds - 1 { // the last start is the one that is loaded
		r, err := b.env.start(p, kind)
		if err != nil {
			return res, err
		}
		r.stop()
		res.Ready = append(res.Ready, r.ready)
	}
	r, err := b.env.start(p, kind)
	if err != nil {
		return res, err
	}
	defer r.stop()
	res.Ready = append(res.Ready, r.ready)
	if err := pause(ctx, idleWait); err != nil {
		return res, err
	}
	res.Start, _ = r.memory()
	if kind != kindH1 {
		return res, nil
	}
	conns, err := dialMany(r.addr, idleConns)
	if err != nil {
		return res, err
	}
	defer closeAll(conns)
	for _, c := range conns {
		if err := c.roundTrip(h1Request); err != nil {
			return res, err
		}
	}
	if res.Idle, err = growth(ctx, r, res.Start); err != nil {
		return res, err
	}
	if err := burst(conns); err != nil {
		return res, err
	}
	res.Burst, err = growth(ctx, r, res.Start)
	return res, err
}

// growth waits, and returns how much more memory is resident for each connection.
func growth(ctx context.Context, r *running, start int64) (int64, error) {
	err := pause(ctx, idleWait)
	now, _ := r.memory()
	return (now - start) / idleConns, err
}

// burst has a request on the way on all connections at once.
func burst(conns []*h1Conn) error {
	for _, c := range conns {
		if _, err := c.c.Write(h1Request); err != nil {
			return err
		}
	}
	errs := make(chan error, len(conns))
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			body, err := c.read()
			if err == nil {
				err = c.check(body)
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
