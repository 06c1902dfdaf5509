// Package traffic turns the counters of many proxies into what a person asks
// of a mesh: who calls whom, how often, with what success, how fast, and over
// mTLS or not, for the last seconds and minutes.
//
// It reads Istio's standard metrics in the Prometheus text format
// ([Store.Scrape]) and keeps what happened between two looks at one proxy in a
// ring of [Span] ([Store.Tick]). It dials nothing, starts no goroutine and
// reads no clock. Safe for concurrent use.
//
// One call may be counted twice, by the caller's proxy and by the called one.
// Where the caller's proxy reports, its count is taken, because it alone sees
// calls that never arrived (injected faults, no endpoint, refused by a breaker)
// and the time that the caller waited; mTLS is taken from the called side,
// which alone knows it. Callers without a proxy are counted by the called side.
//
// It is bounded: [MaxEdges] pairs, [MaxLines] lines of one proxy, [MaxScrape]
// bytes of one answer, [Span] of time. Beyond a bound it says so in
// [Snapshot.Truncated] and goes on with what it has.
package traffic

import "time"

// Bounds of what is kept.
const (
	Span      = 5 * time.Minute
	MaxEdges  = 512      // about 36 MB when all are busy all the time
	MaxTicks  = 320      // Span at one tick a second, and some
	MaxLines  = 40_000   // of one proxy: 24 bytes each
	MaxScrape = 32 << 20 // bytes of one answer
	maxLine   = 16 << 10 // bytes; longer lines are left out

	// maxGap is the longest time between two looks that a rate is worked out
	// over: after a longer pause counting begins anew.
	maxGap = 15 * time.Second
	// Step is the width of one point of a history.
	Step = 5 * time.Second
)
