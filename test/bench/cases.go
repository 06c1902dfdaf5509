package main

import (
	"crypto/tls"
	"time"
)

// workload is one row of the table for each peer.
type workload struct {
	id   string // in the JSON and in the budgets
	name string // as printed
	in   string // value of -cases
	kind string
	open opener
	bulk bool // the figure is CPU time per GB instead of per request
	rate int  // of an open loop, requests/s
	// allocs tells to count weft-proxy's allocations: only where there are enough requests.
	allocs bool
	// workers tells that peers with another number of workers run it, too.
	workers bool
	// handshakes counts connections: the table says how many a CPU second makes.
	handshakes bool
	// cannot says of peers why they do not run it, beyond what their kind says.
	cannot map[string]string
}

const (
	rate     = 1000 // requests/s of the open loops
	fastRate = 4000
	// An open loop that falls behind measures the machine: its round is repeated, at most starvedTries times.
	starvedTries = 3
	starvedP50   = 5 * time.Millisecond
	bigConns     = 4
	// handshakers connect at the same time.
	handshakers = 8
)

// starved tells that requests could not be sent or answered in time because the machine was busy.
func (w *workload) starved(s sample) bool {
	return w.rate > 0 && (float64(s.Requests) < 0.98*float64(w.rate)*s.Elapsed.Seconds() || s.P50 > starvedP50)
}

// Cases that are not kinds.
const (
	caseBody = "body"
	caseIdle = "idle"
)

// caseNames are the values of -cases; idle is not a load.
var caseNames = []string{kindH1, kindPair, kindH2, kindGRPC, kindH1H2, kindTCP, caseBody, kindTLS, caseIdle}

// noMLKEM is why a peer cannot do the hybrid key exchange.
const noMLKEM = "its OpenSSL 3.0 has no ML-KEM"

var workloads = []workload{
	{id: "h1.saturated", name: "h1 saturated, 32 connections", in: kindH1, kind: kindH1, open: openH1Closed(h1Conns), allocs: true, workers: true},
	{id: "h1.rate", name: "h1 at 1,000/s", in: kindH1, kind: kindH1, open: openH1Rate(h1Conns, rate), rate: rate},
	{id: "h1.fast", name: "h1 at 4,000/s", in: kindH1, kind: kindH1, open: openH1Rate(h1Conns, fastRate), rate: fastRate},
	{id: "mtls.saturated", name: "h1 mTLS pair saturated, 32 connections", in: kindPair, kind: kindPair, open: openH1Closed(h1Conns), allocs: true, workers: true},
	{id: "mtls.rate", name: "h1 mTLS pair at 1,000/s", in: kindPair, kind: kindPair, open: openH1Rate(h1Conns, rate), rate: rate},
	{id: "h2.m1", name: "h2 unary, 32 connections × 1 stream", in: kindH2, kind: kindH2, open: openH2(32, 1, 0), allocs: true},
	{id: "h2.m8", name: "h2 unary, 4 connections × 8 streams", in: kindH2, kind: kindH2, open: openH2(4, 8, 0), allocs: true, workers: true},
	{id: "h2.rate", name: "h2 unary at 1,000/s", in: kindH2, kind: kindH2, open: openH2(8, 4, rate), rate: rate},
	{id: "grpc.m8", name: "gRPC unary mTLS pair, 4 connections × 8 streams", in: kindGRPC, kind: kindGRPC, open: openH2(4, 8, 0), allocs: true},
	{id: "grpc.rate", name: "gRPC unary mTLS pair at 1,000/s", in: kindGRPC, kind: kindGRPC, open: openH2(8, 4, rate), rate: rate},
	{id: "h1h2.saturated", name: "h1 to h2 saturated, 32 connections", in: kindH1H2, kind: kindH1H2, open: openH1Closed(h1Conns), allocs: true},
	{id: "tcp.ping", name: "TCP ping-pong 200 B, 8 connections", in: kindTCP, kind: kindTCP, open: openTCP(pingConns, tcpEcho, true, ping), allocs: true},
	{id: "tcp.bulk", name: "TCP bulk, 4 connections", in: kindTCP, kind: kindTCP, open: openTCP(bulkConns, tcpSend, false, receive), bulk: true},
	{id: "body.h1", name: "h1, 1 MB responses, 4 connections", in: caseBody, kind: kindH1, open: openH1Request(bigConns, h1Get(bigPath), bigBody), allocs: true},
	{id: "body.mtls", name: "h1 mTLS pair, 1 MB responses, 4 connections", in: caseBody, kind: kindPair, open: openH1Request(bigConns, h1Get(bigPath), bigBody), allocs: true},
	{id: "body.upload", name: "h1 mTLS pair, 1 MB requests, 4 connections", in: caseBody, kind: kindPair, open: openH1Request(bigConns, h1Post(), h1Body), allocs: true},
	{id: "tls.p256", name: "mTLS handshake (P-256) and one request", in: kindTLS, kind: kindTLS, open: openHandshakes(handshakers, tls.CurveP256), handshakes: true},
	{id: "tls.hybrid", name: "mTLS handshake (X25519MLKEM768) and one request", in: kindTLS, kind: kindTLS, open: openHandshakes(handshakers, tls.X25519MLKEM768), handshakes: true,
		cannot: map[string]string{"haproxy": noMLKEM, "nginx": noMLKEM}},
}
