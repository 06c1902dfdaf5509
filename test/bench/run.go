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

// roundWarm is how long it runs before every round. While others were measured, caches went cold, proxies put connections to sleep and gave
// memory back, and their metrics were read: that is the cost of a pause, not of a request.
const roundWarm = 250 * time.Millisecond

// perStart is how many rounds are measured over the same processes. Where a program's memory comes to lie, and which of its threads
// sees which connection, is decided at its start and moved what the mTLS pair costs by a twentieth; no number of rounds averages that.
const perStart = 3

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
	ID         string             `json:"id"`
	Workload   string             `json:"workload"`
	Bulk       bool               `json:"bulk,omitempty"`
	Handshakes bool               `json:"handshakes,omitempty"`
	Rounds     map[string][]round `json:"rounds"` // by peer
	Order      []string           `json:"order"`
	Missing    map[string]string  `json:"missing,omitempty"` // peer: why it is not here
}

// bench is one run of the program.
type bench struct {
	env      *env
	peers    []*peer
	left     []string // peers that are not installed
	rounds   int
	seconds  float64
	quick    bool
	profiles string    // directory for profiles of weft-proxy; "": none
	out      io.Writer // progress
}

// length of a round.
func (b *bench) length() time.Duration { return time.Duration(b.seconds * float64(time.Second)) }

// measureCase measures all workloads of a value of -cases; the proxies of a kind stay up between them.
func (b *bench) measureCase(ctx context.Context, name string) ([]result, error) {
	var out []result
	for i := 0; i < len(workloads); {
		w := workloads[i]
		j := i + 1
		for j < len(workloads) && workloads[j].in == w.in && workloads[j].kind == w.kind {
			j++
		}
		if w.in == name {
			rs, err := b.measureAnew(ctx, workloads[i:j])
			if err != nil {
				return nil, err
			}
			out = append(out, rs...)
		}
		i = j
	}
	return out, nil
}

// measureAnew runs workloads of one kind, with new processes after every perStart rounds.
func (b *bench) measureAnew(ctx context.Context, ws []workload) ([]result, error) {
	var out []result
	for left := b.rounds; left > 0; left -= perStart {
		rs, err := b.measureKind(ctx, ws, min(left, perStart), left <= perStart)
		if err != nil {
			return nil, err
		}
		out = join(out, rs)
	}
	return out, nil
}

// join appends the rounds of the same workloads over other processes.
func join(all, more []result) []result {
	if all == nil {
		return more
	}
	for i, r := range more {
		for peer, rounds := range r.Rounds {
			all[i].Rounds[peer] = append(all[i].Rounds[peer], rounds...)
		}
	}
	return all
}

// measureKind runs some rounds of workloads of one kind over the same processes, and profiles them in the end if it is the last time.
func (b *bench) measureKind(ctx context.Context, ws []workload, rounds int, last bool) ([]result, error) {
	var run []*running
	defer func() {
		for _, r := range run {
			r.stop()
		}
	}()
	for _, p := range b.peers {
		if !slices.ContainsFunc(ws, func(w workload) bool { return w.why(p) == "" }) {
			continue
		}
		r, err := b.env.start(p, ws[0].kind)
		if err != nil {
			return nil, err
		}
		run = append(run, r)
	}
	var out []result
	for _, w := range ws {
		res, err := b.workload(ctx, w, run, rounds, last)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		out = append(out, res)
	}
	return out, nil
}

// notMeasured is why a peer is left out of a workload without a word in the table.
const notMeasured = "-"

// why tells why a peer does not run a workload; "" if it does.
func (w *workload) why(p *peer) string {
	switch {
	case p.program == directName && w.rate == 0, p.variant() && !w.workers, p.floor && w.in != kindH1 && w.in != kindPair:
		return notMeasured
	case p.cannot[w.kind] != "":
		return p.cannot[w.kind]
	}
	return w.cannot[p.program]
}

// workload runs the rounds, every second one in reverse order.
func (b *bench) workload(ctx context.Context, w workload, all []*running, rounds int, last bool) (result, error) {
	res := result{ID: w.id, Workload: w.name, Bulk: w.bulk, Handshakes: w.handshakes, Rounds: map[string][]round{}, Missing: map[string]string{}}
	for _, p := range b.peers {
		if why := w.why(p); why != "" && why != notMeasured {
			res.Missing[p.name] = why
		}
	}
	loads := map[*running]load{}
	defer func() {
		for _, l := range loads {
			l.close()
		}
	}()
	var order []*running
	for _, r := range all {
		if w.why(r.peer) != "" {
			continue
		}
		order = append(order, r)
		res.Order = append(res.Order, r.peer.name)
		l, err := w.open(r.at)
		if err != nil {
			return res, fmt.Errorf("%s: %w", r.peer.name, err)
		}
		loads[r] = l
		if _, err := l.run(ctx, min(maxWarm, b.length())); err != nil {
			return res, fmt.Errorf("%s: %w", r.peer.name, err)
		}
	}
	run := slices.Clone(order)
	for range rounds {
		for _, r := range order {
			m, err := b.patiently(ctx, w, r, loads[r])
			if err != nil {
				return res, fmt.Errorf("%s: %w", r.peer.name, err)
			}
			res.Rounds[r.peer.name] = append(res.Rounds[r.peer.name], m)
		}
		slices.Reverse(order)
	}
	fmt.Fprintln(b.out, progress(&res))
	for _, r := range run {
		if b.profiles == "" || !last || len(r.admin) == 0 {
			continue
		}
		if err := b.profile(ctx, w, r, loads[r]); err != nil {
			return res, fmt.Errorf("%s: profile: %w", r.peer.name, err)
		}
	}
	return res, nil
}

// patiently repeats rounds of an open loop that the machine was too busy for,
// unless the peer has shown that it is the peer.
func (b *bench) patiently(ctx context.Context, w workload, r *running, l load) (round, error) {
	m, err := b.measure(ctx, w, r, l)
	for try := 1; err == nil && w.starved(m.sample) && !r.slow; try++ {
		if try == starvedTries {
			r.slow = true
			break
		}
		fmt.Fprintf(b.out, "%s: %s: repeated, the machine is too busy (%d requests in %v, p50 %v)\n", w.name, r.peer.name, m.Requests, m.Elapsed, m.P50)
		m, err = b.measure(ctx, w, r, l)
	}
	return m, err
}

func (b *bench) measure(ctx context.Context, w workload, r *running, l load) (round, error) {
	var meter *allocMeter
	if w.allocs {
		meter = newAllocMeter(r)
	}
	counted, err := r.counted()
	if err != nil {
		return round{}, err
	}
	warm, err := r.drive(ctx, l, min(roundWarm, b.length()))
	if err != nil {
		return round{}, err
	}
	meter.start()
	before := r.cpuTime()
	s, err := r.drive(ctx, l, b.length())
	used := r.cpuTime() - before
	if err != nil {
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
	return m, r.checkCounted(counted, warm.Requests+s.Requests)
}

// drive runs a load for a time, and says so if a process has ended meanwhile.
func (r *running) drive(ctx context.Context, l load, d time.Duration) (sample, error) {
	s, err := l.run(ctx, d)
	if err != nil {
		if dead := r.dead(); dead != nil {
			err = fmt.Errorf("%w; %w", err, dead)
		}
	}
	return s, err
}
