// Package serve runs one of the sample's HTTP services and has what all of
// them share: orderly shutdown, a health page, JSON answers and errors on demand.
//
// It knows nothing of a mesh: it is what any small HTTP service would have.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Times of a service.
const (
	readHeaderTimeout = 10 * time.Second
	// Longer than any client keeps an idle connection: when the server closes
	// first, a request that is under way meets a closed connection.
	idleTimeout = time.Hour
	// Kubernetes kills after 30 s; this leaves time to say what was cut.
	shutdownTimeout = 25 * time.Second
)

// Run serves h at l until ctx ends, then finishes the requests under way, for at most
// 25 s, and returns nil if all were finished.
func Run(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	log.Info("listening", "address", l.Addr().String())
	select {
	case err := <-served:
		return fmt.Errorf("serve %v: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	log.Info("stopping: finish the requests under way")
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := srv.Shutdown(limit)
	if err != nil {
		_ = srv.Close()
		err = fmt.Errorf("stop %v: requests were cut after %v: %w", l.Addr(), shutdownTimeout, err)
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// JSON answers with v as JSON.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // our own types always marshal
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left cannot be told
}

// Error is the body of an answer that is no success.
type Error struct {
	Error string `json:"error"`
}

// Fail answers with an [Error].
func Fail(w http.ResponseWriter, status int, message string) {
	JSON(w, status, Error{message})
}

// Health answers probes for the service with the given display name.
func Health(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		JSON(w, http.StatusOK, struct {
			Status string `json:"status"`
		}{name + " is healthy"})
	}
}

// ProductID parses the id of a product in a path.
func ProductID(s string) (int, error) {
	id, err := strconv.Atoi(s)
	if err != nil || id < 0 {
		return 0, fmt.Errorf("product id %q: give a number from 0", s)
	}
	return id, nil
}

// Flaky answers percent of the requests with 503 instead of h, evenly spread:
// 25 is every fourth one.
func Flaky(percent int, h http.Handler) http.Handler {
	if percent <= 0 {
		return h
	}
	var asked atomic.Uint64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, share := asked.Add(1), uint64(percent)
		if n*share/100 != (n-1)*share/100 {
			Fail(w, http.StatusServiceUnavailable, "the service has a bad moment (FLAKY_PERCENT)")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Address returns the base URL of a service from its host name, port and the
// optional domain for all services.
func Address(host, port, domain string) string {
	if domain = strings.Trim(domain, "."); domain != "" {
		host += "." + domain
	}
	return "http://" + net.JoinHostPort(host, port)
}
