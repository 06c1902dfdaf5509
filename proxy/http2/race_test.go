//go:build race

package http2

// raceEnabled: pools drop at random, so allocations say nothing.
const raceEnabled = true
