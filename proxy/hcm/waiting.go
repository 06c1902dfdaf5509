package hcm

import (
	"sync"
	"time"

	"weft.mesh/weft/proxy/http1"
	"weft.mesh/weft/proxy/netio"
)

// waiting sets the read deadline of a connection that has said nothing yet, until over.
type waiting struct {
	nc *netio.Conn

	mu   sync.Mutex
	done bool // guarded by mu
}

func (w *waiting) until(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		_ = w.nc.SetReadDeadline(t)
	}
}

// over takes the deadline away: whoever is late must not touch those of what is read then.
func (w *waiting) over() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	return w.nc.SetReadDeadline(time.Time{})
}

// drainIdle is how long a draining connection may wait for a request, but see [http1.FirstRequestGrace].
func (m *Manager) drainIdle() time.Duration {
	idle := http1.DefaultDrainIdle
	if m.deps.DrainIdle != nil {
		idle = m.deps.DrainIdle()
	}
	if m.deps.DrainTime == nil {
		return idle
	}
	return max(idle, m.deps.DrainTime())
}
