package main

import "time"

// workload is one row of the table for each peer.
type workload struct {
	name string // as printed
	kind string
	open opener
	bulk bool // the figure is CPU time per GB instead of per request
	rate int  // of an open loop, requests/s
	// allocs tells to count weft-proxy's allocations: only where there are enough requests.
	allocs bool
}

const (
	rate = 1000 // requests/s of the open loops
	// An open loop that falls behind measures the machine: its round is repeated, at most starvedTries times.
	starvedTries = 3
	starvedP50   = 5 * time.Millisecond
)

// starved tells that requests could not be sent or answered in time because the machine was busy.
func (w *workload) starved(s sample) bool {
	return w.rate > 0 && (float64(s.Requests) < 0.98*float64(w.rate)*s.Elapsed.Seconds() || s.P50 > starvedP50)
}

var workloads = []workload{
	{name: "h1 saturated, 32 connections", kind: kindH1, open: openH1Closed(h1Conns), allocs: true},
	{name: "h1 at 1,000/s", kind: kindH1, open: openH1Rate(h1Conns, rate), rate: rate},
	{name: "h1 mTLS pair saturated, 32 connections", kind: kindPair, open: openH1Closed(h1Conns), allocs: true},
	{name: "h1 mTLS pair at 1,000/s", kind: kindPair, open: openH1Rate(h1Conns, rate), rate: rate},
	{name: "h2 unary, 32 connections × 1 stream", kind: kindH2, open: openH2(32, 1, 0), allocs: true},
	{name: "h2 unary, 4 connections × 8 streams", kind: kindH2, open: openH2(4, 8, 0), allocs: true},
	{name: "h2 unary at 1,000/s", kind: kindH2, open: openH2(8, 4, rate), rate: rate},
	{name: "TCP ping-pong 200 B, 8 connections", kind: kindTCP, open: openTCP(pingConns, tcpEcho, true, ping), allocs: true},
	{name: "TCP bulk, 4 connections", kind: kindTCP, open: openTCP(bulkConns, tcpSend, false, receive), bulk: true},
}

// caseNames are the values of -cases; idle is not a load.
var caseNames = []string{kindH1, kindPair, kindH2, kindTCP, caseIdle}
