package route

import (
	"bytes"
	"net/netip"
	"strconv"

	"weft.mesh/weft/proxy/stream"
)

// Match finds the route for a request on a connection that was going to dst (not valid: unknown), nil if
// there is none. random decides runtime fractions. It does not allocate.
func (t *Table) Match(req *stream.Request, dst netip.Addr, random uint64) *Route {
	v := t.HostAt(req.Authority, dst)
	if v == nil {
		return nil
	}
	return v.Match(req, random)
}

// Match finds the first route of the virtual host that fits.
func (v *VirtualHost) Match(req *stream.Request, random uint64) *Route {
	path, query := SplitQuery(req.Path)
	for _, r := range v.Routes {
		if r.Match.Path.match(req, path) && r.Match.rest(req, query, random) {
			return r
		}
	}
	return nil
}

func (m *Match) rest(req *stream.Request, query []byte, random uint64) bool {
	if m.Fraction != nil && !m.Fraction.Hit(random) {
		return false
	}
	for i := range m.Headers {
		if !m.Headers[i].Matches(req) {
			return false
		}
	}
	for i := range m.Query {
		if !m.Query[i].matches(query) {
			return false
		}
	}
	return !m.GRPC || IsGRPC(req.Fields.Get("content-type"))
}

// Hit tells whether a request with this random number belongs to the share.
func (f *Fraction) Hit(random uint64) bool {
	return random%uint64(f.Denominator) < uint64(f.Numerator)
}

// SplitQuery cuts a path at the first '?' (or '#').
func SplitQuery(path []byte) (p, query []byte) {
	if i := bytes.IndexByte(path, '#'); i >= 0 {
		path = path[:i]
	}
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return path, nil
}

func (p *Path) match(req *stream.Request, path []byte) bool {
	if p.Kind == PathConnect {
		return string(req.Method) == "CONNECT"
	}
	switch p.Kind {
	case PathAny:
		return true
	case PathPrefix:
		return hasPrefix(path, p.Value, p.IgnoreCase)
	case PathExact:
		return equal(path, p.Value, p.IgnoreCase)
	case PathRegex:
		return p.Regex.Match(path)
	case PathSeparatedPrefix:
		n := len(p.Value)
		return hasPrefix(path, p.Value, p.IgnoreCase) && (len(path) == n || path[n] == '/')
	}
	return false
}

// Matches compares one string. Regular expressions must be anchored; [Build] and [FullRegexp] see to that.
func (s *StringMatch) Matches(b []byte) bool {
	switch s.Kind {
	case StringPresent:
		return true
	case StringExact:
		return equal(b, s.Value, s.IgnoreCase)
	case StringPrefix:
		return hasPrefix(b, s.Value, s.IgnoreCase)
	case StringSuffix:
		n := len(b) - len(s.Value)
		return n >= 0 && equal(b[n:], s.Value, s.IgnoreCase)
	case StringContains:
		return contains(b, s.Value, s.IgnoreCase)
	case StringRegex:
		return s.Regex.Match(b)
	}
	return false
}

// Matches tells whether the condition holds for the request. A missing header fits only a presence
// condition that is inverted, or any condition if it is treated as empty (Envoy).
func (h *HeaderMatch) Matches(req *stream.Request) bool {
	if v, ok := pseudo(req, h.Name); ok {
		return h.value(v) != h.Invert
	}
	found, hit := false, false
	for _, f := range req.Fields.All() {
		if !stream.EqualFold(f.Name, h.Name) {
			continue
		}
		found = true
		if h.value(f.Value) {
			hit = true
			break
		}
	}
	if h.Range == nil && h.Match.Kind == StringPresent {
		return found != h.Invert
	}
	if !found {
		if !h.TreatMissingAsEmpty {
			return false
		}
		hit = h.value(nil)
	}
	return hit != h.Invert
}

func (h *HeaderMatch) value(v []byte) bool {
	if h.Range != nil {
		n, err := strconv.ParseInt(string(v), 10, 64)
		return err == nil && n >= h.Range.Start && n < h.Range.End
	}
	return h.Match.Matches(v)
}

func pseudo(req *stream.Request, name string) ([]byte, bool) {
	switch name {
	case ":method":
		return req.Method, true
	case ":authority", "host":
		return req.Authority, true
	case ":path":
		return req.Path, true
	case ":scheme":
		return req.Scheme, true
	}
	return nil, false
}

// matches compares the first parameter of that name, undecoded (as Envoy).
func (q *QueryMatch) matches(query []byte) bool {
	v, ok := Param(query, q.Name)
	return ok && q.Match.Matches(v)
}

// Param returns the first value of a query parameter, undecoded.
func Param(query []byte, name string) (value []byte, ok bool) {
	for len(query) > 0 {
		pair := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		key, val, _ := bytes.Cut(pair, []byte{'='})
		if string(key) == name {
			return val, true
		}
	}
	return nil, false
}

// IsGRPC tells whether a content type is that of gRPC: application/grpc or application/grpc+something.
func IsGRPC(contentType []byte) bool {
	const p = "application/grpc"
	if len(contentType) < len(p) || !stream.EqualFold(contentType[:len(p)], p) {
		return false
	}
	return len(contentType) == len(p) || contentType[len(p)] == '+' || contentType[len(p)] == ';'
}

func equal(b []byte, s string, fold bool) bool {
	if fold {
		return stream.EqualFold(b, s)
	}
	return string(b) == s
}

func hasPrefix(b []byte, s string, fold bool) bool {
	return len(b) >= len(s) && equal(b[:len(s)], s, fold)
}

func contains(b []byte, s string, fold bool) bool {
	if !fold {
		return bytes.Contains(b, stream.Bytes(s))
	}
	for i := 0; i+len(s) <= len(b); i++ {
		if stream.EqualFold(b[i:i+len(s)], s) {
			return true
		}
	}
	return false
}
