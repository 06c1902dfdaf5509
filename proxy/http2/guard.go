package http2

import "time"

// guard notices peers that make us work for nothing. Guarded by conn.mu.
type guard struct {
	idle     int // frames that do nothing, less ten for each that does
	resets   float64
	resetsAt time.Time
}

const (
	maxIdleFrames  = 2000
	resetBurst     = 1000 // streams reset early at once…
	resetPerSecond = 33   // …and in the long run
)

func (g *guard) init() { g.resets = resetBurst }

// nothing counts a frame that costs its sender little and achieves nothing: SETTINGS, PING, PRIORITY,
// empty DATA, WINDOW_UPDATE, unknown types.
func (g *guard) nothing() error {
	if g.idle++; g.idle > maxIdleFrames {
		return connErr(codeCalm, "too many frames without effect")
	}
	return nil
}

// work counts frames that achieve something, in either direction.
func (g *guard) work() { g.idle = max(0, g.idle-10) }

// sent credits a DATA frame of ours, which may cause WINDOW_UPDATE and PING frames.
func (g *guard) sent() { g.work() }

// completed credits a stream that was answered: a client that resets less than it lets finish is no attacker.
func (g *guard) completed() { g.resets = min(resetBurst, g.resets+1) }

// reset counts a stream that ended early by the peer's doing (CVE-2023-44487).
func (g *guard) reset(now time.Time) error {
	if !g.resetsAt.IsZero() {
		g.resets = min(resetBurst, g.resets+now.Sub(g.resetsAt).Seconds()*resetPerSecond)
	}
	g.resetsAt = now
	if g.resets--; g.resets < 0 {
		return connErr(codeCalm, "too many streams reset")
	}
	return nil
}
