package console

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// policy of what the page may load: its own files only, no script or style in
// the page itself, and no other page may frame it.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard refuses what is not for the page's own visitor, before anything else is looked at.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		// Streams of events set it anew for each event.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(firstWait + writeTimeout)) // only tests' writers have none
		if r.ContentLength != 0 {
			h.Set("Connection", "close") // the body is not waited for
		}
		switch {
		case !ourHost(r.Host):
			// A name that someone else made point here: DNS rebinding.
			writeError(w, http.StatusForbidden, "the console answers to http://localhost, 127.0.0.1 and [::1] only; from another machine use ssh -L")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "the console only reads: method "+r.Method+" is not allowed")
		case r.ContentLength != 0:
			writeError(w, http.StatusBadRequest, "a request to the console has no body")
		case strings.HasPrefix(r.URL.Path, "/api/") && !ourPage(r.Header.Get("Sec-Fetch-Site")):
			writeError(w, http.StatusForbidden, "a page of another site may not read the console")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ourHost says whether a Host header names this machine by loopback, with any port.
func ourHost(host string) bool {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if !digits(port) {
			return false
		}
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && (a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || a == netip.IPv6Loopback())
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// ourPage judges Sec-Fetch-Site, which every browser of today sends: other
// ports of localhost are "same-site", and not ours. Programs send none.
func ourPage(site string) bool {
	return site == "" || site == "same-origin" || site == "none"
}

// limit bounds the connections of a listener: more wait in the kernel's queue.
type limit struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimit(l net.Listener, n int) *limit {
	return &limit{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept waits for a place, then for a connection.
func (l *limit) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limited{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close closes the listener and ends a waiting Accept.
func (l *limit) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limited gives its place back when it is closed.
type limited struct {
	net.Conn
	free func()
}

func (c *limited) Close() error {
	defer c.free()
	return c.Conn.Close()
}
