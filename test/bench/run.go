package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// maxWarm is how long a load runs at most before its first round.
const maxWarm = 500 * time.Millisecond

// round is one measurement of one peer.
type round struct {
	CPU    time.Duration `json:"cpu_ns"`         // per request, or per GB
	Allocs float64       `json:"allocs"`         // per request; -1: unknown
	RSS    int64         `json:"rss_bytes"`      // at the end of the round
	Peak   int64         `json:"rss_peak_bytes"` // since the start of the process
	sample
}

// result is all rounds of one workload.
type result struct {
	Workload string             `json:"workload"`
	Bulk     bool               `json:"bulk,omitempty"`
	Rounds   map[string][]round `json:"rounds"` // by peer
	Order    []string           `json:"order"`
}

// bench is one run of the program.
type bench struct {
	env      *env
	peers    []*peer
	rounds   int
	seconds  float64
	profiles string    // directory for profiles of weft-proxy; "": none
	out      io.Writer // progress
}

// length of a round.
func (b *bench) length() time.Duration { return time.Duration(b.seconds * float64(time.Second)) }

// kind measures all workloads of a kind; the proxies stay up between them.
func (b *bench) kind(ctx context.Context, kind string) ([]result, error) {
	var run []*running
	defer func() {
		for _, r := range run {
			r.stop()
		}
	}()
	for _, p := range b.peers {
		if !slices.Contains(p.kinds, kind) {
			fmt.Fprintf(b.out, "%s: left out of %s: its configuration here cannot do it\n", p.name, kind)
			continue
		}
		r, err := b.env.start(p, kind)
		if err != nil {
			return nil, err
		}
		run = append(run, r)
	}
	var out []result
	for _, w := range workloads {
		if w.kind != kind {
			continue
		}
		res, err := b.workload(ctx, w, run)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		out = append(out, res)
	}
	return out, nil
}

// workload runs the rounds, every second one in reverse order.
func (b *bench) workload(ctx context.Context, w workload, run []*running) (result, error) {
	res := result{Workload: w.name, Bulk: w.bulk, Rounds: map[string][]round{}}
	loads := map[*running]load{}
	defer func() {
		for _, l := range loads {
			l.close()
		}
	}()
	for _, r := range run {
		res.Order = append(res.Order, r.peer.name)
		l, err := w.open(r.addr)
		if err != nil {
			return res, fmt.Errorf("%s: %w", r.peer.name, err)
		}
		loads[r] = l
		if _, err := l.run(ctx, min(maxWarm, b.length())); err != nil {
			return res, fmt.Errorf("%s: %w", r.peer.name, err)
		}
	}
	order := slices.Clone(run)
	for range b.rounds {
		for _, r := range order {
			m, err := b.measure(ctx, w, r, loads[r])
			for try := 1; err == nil && w.starved(m.sample) && try < starvedTries; try++ {
				fmt.Fprintf(b.out, "%s: %s: repeated, the machine is too busy (%d requests in %v, p50 %v)\n", w.name, r.peer.name, m.Requests, m.Elapsed, m.P50)
				m, err = b.measure(ctx, w, r, loads[r])
			}
			if err != nil {
				return res, fmt.Errorf("%s: %w", r.peer.name, err)
			}
			res.Rounds[r.peer.name] = append(res.Rounds[r.peer.name], m)
		}
		slices.Reverse(order)
	}
	fmt.Fprintln(b.out, progress(&res))
	for _, r := range run {
		if b.profiles == "" || len(r.admin) == 0 {
			continue
		}
		if err := b.profile(ctx, w, r, loads[r]); err != nil {
			return res, fmt.Errorf("%s: profile: %w", r.peer.name, err)
		}
	}
	return res, nil
}

func (b *bench) measure(ctx context.Context, w workload, r *running, l load) (round, error) {
	var meter *allocMeter
	if w.allocs {
		meter = newAllocMeter(r)
	}
	meter.start()
	before := r.cpuTime()
	s, err := l.run(ctx, b.length())
	used := r.cpuTime() - before
	if err != nil {
		for _, p := range r.procs {
			if !p.running() {
				err = fmt.Errorf("%w; %s ended: %s", err, p.name, p.lastWords())
			}
		}
		return round{}, err
	}
	m := round{sample: s, Allocs: meter.perRequest(s.Requests)}
	m.RSS, m.Peak = r.memory()
	switch {
	case w.bulk && s.Bytes > 0:
		m.CPU = time.Duration(float64(used) / (float64(s.Bytes) / 1e9))
	case !w.bulk && s.Requests > 0:
		m.CPU = used / time.Duration(s.Requests)
	default:
		return m, fmt.Errorf("nothing got through in %v", s.Elapsed)
	}
	return m, nil
}
