package http1

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// lookedAfter is what happens to a connection that asks at the given times, and when.
func lookedAfter(i *idling, asks []time.Duration) (told []string) {
	var now, deadline time.Duration
	ever, armed := false, false
	for {
		if !armed || !i.goesOn() {
			i.begin(now)
			if due, ok := i.due(); !armed || due < deadline || deadline < now+(due-now)/2 { // as armIdle does
				deadline, ever = due, ok
			}
			armed = true
		}
		for {
			if len(asks) > 0 && (!ever || asks[0] <= deadline) {
				now, asks = asks[0], asks[1:]
				i.served++
				break
			}
			if !ever {
				return told
			}
			now = deadline
			what := i.look(now)
			if what == wait {
				deadline, ever = i.due()
				continue
			}
			told = append(told, fmt.Sprintf("%s at %v", map[afterLook]string{putAway: "away", end: "end"}[what], now))
			if what == end || len(asks) == 0 {
				return told
			}
			i.away, armed, now = true, false, asks[0] // which wakes it
			break
		}
	}
}

func TestWhenAnIdleConnectionIsLookedAfter(t *testing.T) {
	const s = time.Second
	every := func(step, until time.Duration) (at []time.Duration) {
		for d := time.Duration(0); d <= until; d += step {
			at = append(at, d)
		}
		return at
	}
	park := func(*netio.Conn, time.Time, func()) bool { return true }
	for name, tt := range map[string]struct {
		o     ServerOptions
		stays bool
		asks  []time.Duration
		want  []string
	}{
		"nothing bounds it":            {ServerOptions{}, false, every(s, 10*s), nil},
		"an end":                       {ServerOptions{IdleTimeout: 10 * s}, false, []time.Duration{0, 3 * s}, []string{"end at 13s"}},
		"an end, and nothing asked":    {ServerOptions{IdleTimeout: 10 * s}, false, nil, []string{"end at 10s"}},
		"an end before it is parked":   {ServerOptions{IdleTimeout: 10 * s, Park: park}, false, nil, []string{"end at 10s"}},
		"nobody takes it":              {ServerOptions{IdleTimeout: 320 * s, Park: park}, true, []time.Duration{0, s}, []string{"end at 5m21s"}},
		"nothing asked":                {ServerOptions{IdleTimeout: 60 * s, Park: park}, false, nil, []string{"away at 16s"}},
		"one request":                  {ServerOptions{IdleTimeout: 60 * s, Park: park}, false, []time.Duration{0}, []string{"away at 1s"}},
		"used again soon":              {ServerOptions{IdleTimeout: 60 * s, Park: park}, false, []time.Duration{0, 2 * s}, []string{"away at 1s", "away at 18s"}},
		"used again late":              {ServerOptions{IdleTimeout: 60 * s, Park: park}, false, []time.Duration{0, 20 * s}, []string{"away at 1s", "away at 21s"}},
		"used twice soon":              {ServerOptions{IdleTimeout: 60 * s, Park: park}, false, []time.Duration{0, s / 4}, []string{"away at 16.25s"}},
		"always used":                  {ServerOptions{IdleTimeout: 60 * s, Park: park}, false, every(2*s/5, 40*s), []string{"away at 56s"}},
		"rough, nothing asked":         {ServerOptions{Park: park}, false, nil, []string{"away at 8s"}},
		"rough, one request":           {ServerOptions{Park: park}, false, []time.Duration{0}, []string{"away at 500ms"}},
		"rough, used again soon":       {ServerOptions{Park: park}, false, []time.Duration{0, 2 * s}, []string{"away at 500ms", "away at 18s"}},
		"rough, always used":           {ServerOptions{Park: park}, false, every(s, 10*s), []string{"away at 500ms", "away at 25s"}},
		"rough, used again long after": {ServerOptions{IdleTimeout: time.Hour, Park: park}, false, []time.Duration{0, 60 * s}, []string{"away at 500ms", "away at 1m1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.ParkAfter = 16 * s
			if got := lookedAfter(&idling{o: &tt.o, stays: tt.stays}, tt.asks); !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
