// Package overload decides when the proxy has taken on enough, and what gives.
//
// It watches the process's memory against a limit and counts running requests
// against a bound. Three actions follow, named as Envoy names them, each when the
// one before was not enough:
//
//	shrink_heap               ask the rest of the proxy to let go of what idles
//	stop_accepting_requests   new requests are answered with 503
//	reject_incoming_connections  new connections are closed at once
//
// An action ends when the pressure is [hysteresis] below where it begins. What
// runs is never cut, and the admin interface, probes and metrics are not asked.
//
// It measures and decides; it does not answer, close or collect itself: those are
// functions in [Settings] and callers of [Manager.Begin] and [Manager.Refuse].
// Begin, End and Refuse cost an atomic operation or two. Nothing runs before [Manager.Run].
package overload

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Action is something that the proxy does under pressure.
type Action uint8

// Actions in the order that they are taken.
const (
	ShrinkHeap Action = iota
	StopRequests
	RefuseConnections
	actions
)

// names are Envoy's, without "envoy.overload_actions.".
var names = [actions]string{"shrink_heap", "stop_accepting_requests", "reject_incoming_connections"}

func (a Action) String() string { return names[a] }

// Actions lists all actions.
func Actions() []Action { return []Action{ShrinkHeap, StopRequests, RefuseConnections} }

// thresholds are shares of the memory limit. The collector is told to stay below 90 %
// of the limit (GOMEMLIMIT) and works ever harder as live memory comes near that, so
// that requests are turned away before.
var thresholds = [actions]float64{0.75, 0.85, 0.9}

const (
	// hysteresis is how far below its threshold an action ends.
	hysteresis = 0.03
	// every is how often memory is looked at.
	every = 250 * time.Millisecond
	// collectEvery is how often at most the heap is collected to learn what of it is in use; longer if that takes long.
	collectEvery = time.Second
	// collectShare bounds the time spent in that: a collection of d is followed by at least collectShare*d without.
	collectShare = 20
	// emergency is when there is no time to learn that.
	emergency = 0.98
	// shrinkEvery is how often at most the rest of the proxy is asked to let go.
	shrinkEvery = 10 * time.Second
)

// Settings of a [Manager].
type Settings struct {
	// MemoryLimit in bytes; 0: memory is not watched.
	MemoryLimit uint64
	// MaxStreams bounds requests that run at once; 0: no bound.
	MaxStreams int64
	// Memory is what the process holds, garbage too, in bytes.
	Memory func() uint64
	// Collect frees garbage and gives it back to the system.
	Collect func()
	// Shrink lets go of what idles: connections, buffers. It is called when the
	// pressure is high also after Collect.
	Shrink func()
	// Log gets beginnings and ends of actions; nil: nothing is logged.
	Log *slog.Logger
}

// Manager is the state of one proxy. Make it with [New].
type Manager struct {
	set     Settings
	active  [actions]atomic.Bool
	load    atomic.Uint64 // pressure in parts of a million
	streams atomic.Int64
	stats   Stats

	// Run only.
	collected time.Time
	took      time.Duration
	shrunk    time.Time
}

// Stats are counters since the start.
type Stats struct {
	Requests    atomic.Uint64 // answered with 503
	Connections atomic.Uint64 // refused
	Collections atomic.Uint64 // made under pressure
	Shrinks     atomic.Uint64
}

// New makes a manager that admits everything until Run measures otherwise.
func New(set Settings) *Manager {
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	return &Manager{set: set}
}

// Begin tells whether one more request may run. End must follow if so.
func (m *Manager) Begin() bool {
	if m.active[StopRequests].Load() {
		m.stats.Requests.Add(1)
		return false
	}
	if m.set.MaxStreams > 0 && m.streams.Add(1) > m.set.MaxStreams {
		m.streams.Add(-1)
		m.stats.Requests.Add(1)
		return false
	}
	return true
}

// End tells that a request that Begin admitted has ended.
func (m *Manager) End() {
	if m.set.MaxStreams > 0 {
		m.streams.Add(-1)
	}
}

// Refuse tells whether a new connection must be closed at once.
func (m *Manager) Refuse() bool {
	if !m.active[RefuseConnections].Load() {
		return false
	}
	m.stats.Connections.Add(1)
	return true
}

// Active tells whether an action is being taken.
func (m *Manager) Active(a Action) bool { return m.active[a].Load() }

// Pressure is the share of the memory limit in use at the last look; 0 without a limit.
func (m *Manager) Pressure() float64 { return float64(m.load.Load()) / 1e6 }

// Stats returns the counters. They go on counting.
func (m *Manager) Stats() *Stats { return &m.stats }

// Run looks at the memory until ctx ends. Without a limit it does nothing.
func (m *Manager) Run(ctx context.Context) error {
	if m.set.MemoryLimit == 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			m.look(now)
		}
	}
}

// look measures and decides. Memory includes garbage, so a high value only says
// that it is time to collect; the value after that decides.
func (m *Manager) look(now time.Time) {
	p := m.measure()
	calm := p < thresholds[ShrinkHeap]
	if !calm && now.Sub(m.collected) >= max(collectEvery, collectShare*m.took) {
		m.set.Collect()
		m.stats.Collections.Add(1)
		m.took = time.Since(now)
		m.collected = time.Now()
		p = m.measure()
	} else if !calm && p < emergency {
		return // as it was, until it is known what of it is in use
	}
	m.decide(p, now)
}

func (m *Manager) measure() float64 {
	p := float64(m.set.Memory()) / float64(m.set.MemoryLimit)
	m.load.Store(uint64(p * 1e6))
	return p
}

func (m *Manager) decide(p float64, now time.Time) {
	for a := range actions {
		on := m.active[a].Load()
		switch {
		case !on && p >= thresholds[a]:
			m.active[a].Store(true)
			m.set.Log.Warn("overload action begins", "action", a.String(), "pressure", p, "limit", m.set.MemoryLimit)
		case on && p < thresholds[a]-hysteresis:
			m.active[a].Store(false)
			m.set.Log.Info("overload action ends", "action", a.String(), "pressure", p)
		}
	}
	if m.active[ShrinkHeap].Load() && now.Sub(m.shrunk) >= shrinkEvery {
		m.shrunk = now
		m.stats.Shrinks.Add(1)
		m.set.Shrink()
	}
}
