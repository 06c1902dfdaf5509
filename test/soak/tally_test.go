package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tally counts outcomes and judges failures.
type tally struct {
	t  testing.TB
	mu sync.Mutex
	// mu protects the following.
	ok        map[string]int // by kind of operation
	explained map[string]int // by explanation
	notes     map[string]int
	bad       int
	windows   []window // when the flaky upstreams were down, the latest last
}

type window struct{ from, to time.Time }

const afterDown = 2 * time.Second // until an upstream that is back may show in failures

func newTally(t testing.TB) *tally {
	return &tally{t: t, ok: map[string]int{}, explained: map[string]int{}, notes: map[string]int{}}
}

// down notes that flaky upstreams go away; the function it returns, that they are back.
func (y *tally) down() (up func()) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.windows = append(y.windows[max(0, len(y.windows)-50):], window{from: time.Now()})
	return func() {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.windows[len(y.windows)-1].to = time.Now()
	}
}

// note counts something that is neither success nor failure.
func (y *tally) note(what string, n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.notes[what] += n
}

// fail is a failure that nothing explains.
func (y *tally) fail(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.bad++; y.bad <= 40 {
		y.t.Errorf("%s %s", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	}
}

// done records one operation: err nil is success. fault is what the operation asked for ("" none).
func (y *tally) done(kind string, o op, began time.Time, err error) {
	switch {
	case err == nil && o.fault.mustFail():
		y.fail("%s %s %s: succeeded in spite of %s", kind, o.id, o.path(), o.fault)
	case err == nil:
		y.mu.Lock()
		y.ok[kind]++
		y.mu.Unlock()
	case isWrong(err):
		y.fail("%s %s to %s %s (fault %q): %v", kind, o.id, o.to, o.path(), o.fault, err)
	case o.fault.mustFail():
		y.count("asked for "+string(o.fault), 1)
	case o.fault == early && time.Since(began) > time.Second:
		y.count("went on sending for too long after its response", 1) // a proxy reads on for a second
	case o.lasts > 0 && strings.HasSuffix(o.to, " moved") && time.Since(began) >= drainTime:
		y.count("lasted longer than the drain of its listener", 1)
	case o.flaky && y.wasDown(began):
		y.count("upstream down", 1)
	default:
		y.fail("%s %s to %s %s (fault %q, after %v): %v", kind, o.id, o.to, o.path(), o.fault, time.Since(began).Round(time.Millisecond), err)
	}
}

func (y *tally) count(why string, n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.explained[why] += n
}

// wasDown tells whether flaky upstreams were down at some time since began.
func (y *tally) wasDown(began time.Time) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return slices.ContainsFunc(y.windows, func(w window) bool {
		return w.to.IsZero() || w.to.Add(afterDown).After(began)
	})
}

func (y *tally) summary() (total int, text string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	list := func(m map[string]int) string {
		var out []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, fmt.Sprintf("%s %d", k, m[k]))
		}
		return strings.Join(out, ", ")
	}
	failed := 0
	for _, n := range y.ok {
		total += n
	}
	for _, n := range y.explained {
		failed += n
	}
	return total, fmt.Sprintf("%d right (%s); %d failed as a fault explains (%s); %d wrong or unexplained; %s",
		total, list(y.ok), failed, list(y.explained), y.bad, list(y.notes))
}
