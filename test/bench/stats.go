package main

import (
	"cmp"
	"slices"
)

// base is the peer that ratios are to.
const base = "haproxy"

func median[T cmp.Ordered](v []T) T {
	if len(v) == 0 {
		var zero T
		return zero
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// pick takes one figure of each round.
func pick[T any](rs []round, f func(round) T) []T {
	out := make([]T, len(rs))
	for i, r := range rs {
		out[i] = f(r)
	}
	return out
}

// ratio is the median of a figure's ratios to base in the same round; 0 without base.
func (r *result) ratio(peer string, f func(round) float64) float64 {
	return median(r.ratios(peer, base, f))
}

// ratios are a peer's figures to another's in the same rounds.
func (r *result) ratios(peer, to string, f func(round) float64) []float64 {
	b, mine := r.Rounds[to], r.Rounds[peer]
	var out []float64
	for i := range min(len(b), len(mine)) {
		if d := f(b[i]); d > 0 {
			out = append(out, f(mine[i])/d)
		}
	}
	return out
}
