// Package dns answers the names of the mesh: to the pods of a node, or beside
// one workload to that.
//
// It answers A queries from a table of names ([Server.SetTable]); AAAA and
// other types of a known name get an empty answer, because pods have IPv4
// addresses only. An unknown name gets NXDOMAIN, which also makes a resolver
// walk on through its search list. Nothing is forwarded unless upstream
// servers are configured: a local mesh has no way out by itself. A server in a pod is a
// part of the DNS only ([Server.Partial]): what it does not know is the upstreams' to answer.
//
// The last table stays in force until another is set. Requests, connections
// and messages are bounded; what is malformed gets FORMERR or no answer.
package dns

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds.
const (
	maxAnswers = 64  // addresses in one answer; a headless service may have more pods
	maxNameLen = 255 // RFC 1035 section 2.3.4
)

// table is immutable after it was built.
type table struct {
	names map[string][]netip.Addr // lower case, without trailing dot
	// parents holds every name that has a known name below it: such a name
	// exists (RFC 8020), so asking for it is not NXDOMAIN.
	parents map[string]bool
}

// newTable makes a table, with parents if they are asked for.
func newTable(names map[string][]string, parents bool) *table {
	t := &table{names: make(map[string][]netip.Addr, len(names)), parents: map[string]bool{}}
	for name, addrs := range names {
		key := strings.ToLower(strings.TrimSuffix(name, "."))
		if key == "" || len(key) > maxNameLen {
			continue
		}
		for _, s := range addrs {
			if a, err := netip.ParseAddr(s); err == nil && a.Unmap().Is4() {
				t.names[key] = append(t.names[key], a.Unmap())
			}
		}
		if _, ok := t.names[key]; !ok {
			t.names[key] = nil // known, without an IPv4 address
		}
		if !parents {
			continue
		}
		for _, rest, ok := strings.Cut(key, "."); ok; _, rest, ok = strings.Cut(rest, ".") {
			t.parents[rest] = true
		}
	}
	return t
}

// lookup finds the addresses of a name; known says whether the name exists.
// A name of the table may begin with "*.": it covers every name below it.
func (t *table) lookup(name string) (addrs []netip.Addr, known bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if a, ok := t.names[name]; ok {
		return a, true
	}
	for _, rest, ok := strings.Cut(name, "."); ok; _, rest, ok = strings.Cut(rest, ".") {
		if a, ok := t.names["*."+rest]; ok {
			return a, true
		}
	}
	return nil, t.parents[name]
}

// Server answers DNS queries. The zero value answers NXDOMAIN to everything.
type Server struct {
	// Upstreams are asked for names that the table does not hold, in order.
	// Set before Run.
	Upstreams []netip.AddrPort
	// Partial: the upstreams know names and records that the table does not. A name that merely has known names below it
	// is then theirs to answer, and so is every type but A and AAAA. Set before Run.
	Partial bool
	// Search is the first search domain of the clients' resolvers, in lower case without a dot at the end: a name with it at the end
	// that is not known is answered as an alias of the name without it, if that is. "": nothing is. Set before Run.
	Search string
	// Timeout bounds the wait for each upstream; 0: 2 s. Set before Run.
	Timeout time.Duration
	// Captured tells whether a sidecar takes the connections of the client at an
	// address: it is told the names of [Server.SetCaptured] too. nil: nobody is. Set before Run.
	Captured func(netip.Addr) bool

	current, captured atomic.Pointer[table]
	counts            counters
}

// SetCaptured publishes names that only captured clients are told, in addition
// to the table's: their addresses mean something to a sidecar alone.
func (s *Server) SetCaptured(names map[string][]string) { s.captured.Store(newTable(names, true)) }

// SetTable publishes a table: full name to addresses. Entries that are not
// IPv4 addresses are left out; the name stays known.
func (s *Server) SetTable(names map[string][]string) { s.current.Store(newTable(names, !s.Partial)) }

// Names lists the names of the table in force, sorted.
func (s *Server) Names() []string {
	t := s.current.Load()
	if t == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.names))
}

// lookup asks the table, and for a captured client before it the names that
// are for such only.
func (s *Server) lookup(name string, client netip.Addr) (addrs []netip.Addr, known bool) {
	if more := s.captured.Load(); more != nil && s.Captured != nil && s.Captured(client.Unmap()) {
		key := strings.ToLower(strings.TrimSuffix(name, "."))
		if a, ok := more.names[key]; ok {
			return a, true
		}
		known = more.parents[key]
	}
	t := s.current.Load()
	if t == nil {
		return nil, known
	}
	addrs, ok := t.lookup(name)
	if s.Partial && addrs == nil {
		return nil, false
	}
	return addrs, ok || known
}

// resolve picks the addresses to answer with: in random order when there is
// more than one, so that plain clients of a headless service spread out.
func (s *Server) resolve(name string, client netip.Addr) ([]netip.Addr, bool) {
	addrs, known := s.lookup(name, client)
	if len(addrs) > 1 {
		addrs = slices.Clone(addrs)
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	}
	return addrs[:min(len(addrs), maxAnswers)], known
}
