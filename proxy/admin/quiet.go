package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Bounds of /drain/quiet.
const (
	defaultQuiet = 3 * time.Second
	maxQuiet     = time.Hour
	quietLook    = 100 * time.Millisecond // between two looks at what has arrived
	maxQuietAsks = 64                     // at once: one for each container of a pod, and some
)

// quiet answers when nothing new came to the workload for the time "quiet" (default 3 s), at the latest after the time "most" (default:
// quiet). It is the preStop hook of the programs beside a proxy: others call them until they have heard that the pod ends, however long
// that takes; and of a gateway, by weft-proxy drain. It changes nothing, so that it does not matter who asks.
func (s *Server) quiet(w http.ResponseWriter, r *http.Request) {
	quiet, most, err := quietTimes(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c := http.NewResponseController(w) // the server's time-outs are for answers that come at once
	_ = c.SetReadDeadline(time.Time{})
	_ = c.SetWriteDeadline(time.Time{})
	select {
	case s.quietAsks <- struct{}{}:
		defer func() { <-s.quietAsks }()
	default: // whoever may reach the port can take the places: a program that ends still gets the time that it has by default
		select {
		case <-r.Context().Done():
		case <-time.After(defaultQuiet):
		}
		http.Error(w, fmt.Sprintf("%d others wait already: waited %v without looking", maxQuietAsks, defaultQuiet), http.StatusServiceUnavailable)
		return
	}
	began := time.Now()
	since, seen := began, s.set.Arrived()
	look := time.NewTicker(quietLook)
	defer look.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-look.C:
		}
		now := time.Now()
		if n := s.set.Arrived(); n != seen {
			since, seen = now, n
		}
		switch {
		case now.Sub(since) >= quiet:
			fmt.Fprintf(w, "quiet for %v\n", quiet)
			return
		case now.Sub(began) >= most:
			s.set.Log.Warn("the pod ends although others still call it", "after", most)
			fmt.Fprintf(w, "not quiet for %v within %v\n", quiet, most)
			return
		}
	}
}

// quietTimes reads the times, of which most is never the shorter one.
func quietTimes(q url.Values) (quiet, most time.Duration, err error) {
	quiet = defaultQuiet
	for _, x := range []struct {
		name string
		to   *time.Duration
	}{{"quiet", &quiet}, {"most", &most}} {
		v := q.Get(x.name)
		if v == "" {
			continue
		}
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 || d > maxQuiet {
			return 0, 0, fmt.Errorf("%s %.50q: want a duration like 3s, at most %v", x.name, v, maxQuiet)
		}
		*x.to = d
	}
	return quiet, max(quiet, most), nil
}
