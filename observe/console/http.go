package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/observe/traffic"
)

// windows that may be asked for; the first is the default.
var windows = []time.Duration{time.Minute, 10 * time.Second, traffic.Span}

// window reads ?window=, in seconds.
func window(r *http.Request) (time.Duration, error) {
	q := r.URL.Query().Get("window")
	if q == "" {
		return windows[0], nil
	}
	for _, w := range windows {
		if q == fmt.Sprint(int(w.Seconds())) {
			return w, nil
		}
	}
	return 0, fmt.Errorf("window %.20q: want 10, 60 or 300 (seconds)", q)
}

// firstWait bounds the wait of a first request for two looks, which make a rate.
const firstWait = 2 * time.Second

// await waits until what is shown is young, and tells that somebody looks.
func (s *Server) await(r *http.Request, rates bool) *view {
	s.audience.touch()
	deadline := time.NewTimer(firstWait)
	defer deadline.Stop()
	for {
		v, fresh := s.current()
		young := time.Since(v.at) < attention
		if young && (!rates || time.Since(s.store.Last()) < attention) {
			return v
		}
		select {
		case <-fresh:
		case <-deadline.C:
			return v
		case <-r.Context().Done():
			return v
		}
	}
}

// plain answers with a part of the view.
func (s *Server) plain(part func(*view, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := part(s.await(r, false), r)
		switch {
		case errors.Is(err, errNoObject):
			writeError(w, http.StatusNotFound, err.Error())
		case err != nil:
			writeError(w, http.StatusInternalServerError, err.Error())
		default:
			writeJSON(w, out)
		}
	}
}

// windowed answers with a part that depends on traffic.
func (s *Server) windowed(part func(*view, *traffic.Snapshot) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d, err := window(r)
		if err != nil {
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		v := s.await(r, true)
		writeJSON(w, part(v, s.store.Snapshot(d)))
	}
}

// events streams the overview and the graph after every look, as server-sent events.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	d, err := window(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if r.Method == http.MethodHead {
		return
	}
	if !s.audience.enter() {
		w.Header().Set("Retry-After", "10")
		writeError(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages watch already, the limit", maxViewers))
		return
	}
	defer s.audience.leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	c := http.NewResponseController(w)
	_, fresh := s.current()
	for {
		if v, _ := s.current(); !v.at.IsZero() {
			b, err := s.event(d)
			if err == nil {
				err = send(w, c, b)
			}
			if err != nil {
				return // the visitor left, or takes too long
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-fresh:
		}
		_, fresh = s.current()
	}
}

// event is one event, encoded once for all who watch the same window.
func (s *Server) event(d time.Duration) ([]byte, error) {
	s.mu.Lock()
	v, b := s.cur, s.encoded[d]
	s.mu.Unlock()
	if b != nil {
		return b, nil
	}
	t := s.store.Snapshot(d)
	b, err := json.Marshal(Event{Overview: v.overview(t), Graph: v.graph(t), Revisions: v.revisions})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == v {
		s.encoded[d] = b
	}
	return b, nil
}

func send(w http.ResponseWriter, c *http.ResponseController, b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
		return err
	}
	return c.Flush()
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	write(w, http.StatusOK, b)
}

func writeError(w http.ResponseWriter, status int, message string) {
	b, err := json.Marshal(admin.Error{Message: message})
	if err != nil {
		b = []byte(`{"error":"internal"}`)
	}
	write(w, status, b)
}

func write(w http.ResponseWriter, status int, b []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the visitor left
}
