package telemetry

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// maxStripes bounds the copies of a counter. The proxy runs on few Ps; more copies cost memory and gain nothing.
const maxStripes = 8

// stripes is the number of copies of each counter, a power of two: one for each P at the time of the program's start.
var stripes = 1 << bits.Len(uint(min(runtime.GOMAXPROCS(0), maxStripes)-1))

// stripe picks a copy for the calling goroutine. Goroutines have their stacks in
// different places, so the address of a local variable spreads them; one goroutine
// mostly meets the same copy, whose cache line then stays with its core. Any answer is correct.
func stripe() int {
	var x byte
	p := uintptr(unsafe.Pointer(&x)) >> 11 // stacks are at least 2 KiB
	return int((p^p>>7)*0x9E37) >> 4 & (stripes - 1)
}

// padded is a counter alone on its cache line (two lines: adjacent-line prefetch).
type padded struct {
	n atomic.Uint64
	_ [120]byte
}

// Counter only grows. Make it with [Registry.Counter].
type Counter struct{ cells []padded }

func newCounter() *Counter { return &Counter{cells: make([]padded, stripes)} }

// Inc adds one.
func (c *Counter) Inc() { c.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.cells[stripe()].n.Add(n) }

// Value is the sum.
func (c *Counter) Value() (sum uint64) {
	for i := range c.cells {
		sum += c.cells[i].n.Load()
	}
	return sum
}

// Gauge goes up and down. The zero value is ready.
type Gauge struct{ n atomic.Int64 }

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) { g.n.Add(n) }

// Set replaces the value.
func (g *Gauge) Set(n int64) { g.n.Store(n) }

// Value is the current value.
func (g *Gauge) Value() int64 { return g.n.Load() }
