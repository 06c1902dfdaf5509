package hcm

import (
	"bytes"
	"strconv"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// rewrite changes host and path as the route says, and keeps the originals for the log and the upstream.
func (x *exchange) rewrite(f *route.Forward) {
	if f.HostRewrite != "" {
		x.req.Fields.SetBytes("x-envoy-original-host", x.req.Authority)
		x.req.Authority = stream.Bytes(f.HostRewrite)
	}
	var path []byte
	switch {
	case f.PrefixRewrite != nil:
		path = x.rewritePrefix(*f.PrefixRewrite)
	case f.RegexRewrite != nil:
		path = x.rewriteRegex(f.RegexRewrite)
	default:
		return
	}
	x.req.Fields.SetBytes("x-envoy-original-path", x.req.Path)
	x.req.Path = path
}

// rewritePrefix puts to in the place of what the route matched: the prefix, or
// the whole path. A route that does not look at the path matched nothing, so to
// comes in front. Slashes are not adapted: /old → / makes //x of /old/x (Envoy).
func (x *exchange) rewritePrefix(to string) []byte {
	path, _ := route.SplitQuery(x.req.Path)
	matched := 0
	switch p := &x.route.Match.Path; p.Kind {
	case route.PathPrefix, route.PathSeparatedPrefix, route.PathExact:
		matched = min(len(p.Value), len(path))
	case route.PathRegex:
		matched = len(path)
	}
	return x.join(to, x.req.Path[matched:])
}

// join makes a value in the arena.
func (x *exchange) join(a string, b []byte) []byte {
	start := len(x.buf)
	x.buf = append(append(x.buf, a...), b...)
	return x.buf[start:len(x.buf):len(x.buf)]
}

func (x *exchange) rewriteRegex(r *route.RegexRewrite) []byte {
	path, _ := route.SplitQuery(x.req.Path)
	out := r.Regex.ReplaceAll(path, []byte(r.Substitution))
	return append(out, x.req.Path[len(path):]...)
}

// redirect answers with a Location.
func (x *exchange) redirect(r *route.Redirect) {
	status := r.Status
	if status == 0 {
		status = 301
	}
	x.reply(&filter.Reply{Status: status, Details: "direct_response", Headers: []filter.Header{{Name: "location", Value: string(x.location(r))}}})
}

// location is the redirect's target. The port of the Host header stays, unless the redirect
// names a host or port of its own, or changes the scheme and the port was the old scheme's default.
func (x *exchange) location(r *route.Redirect) []byte {
	proto := x.h.proto
	if proto == nil {
		proto = x.req.Fields.Get("x-forwarded-proto")
	}
	scheme := r.Scheme
	if scheme == "" {
		scheme = string(proto)
		if r.HTTPS {
			scheme = "https"
		}
	}
	out := append(append(make([]byte, 0, 128), scheme...), "://"...)
	if r.Host != "" {
		out = append(out, r.Host...)
	} else {
		host := x.req.Authority
		if r.Port != 0 || r.DropPort || r.Scheme != "" && r.Scheme != string(proto) && defaultPort(host, proto) {
			host = stripPort(host)
		}
		out = append(out, host...)
	}
	if r.Port != 0 && !r.DropPort {
		out = strconv.AppendUint(append(out, ':'), uint64(r.Port), 10)
	}
	return x.locationPath(out, r)
}

func defaultPort(host, scheme []byte) bool {
	return string(scheme) == "http" && bytes.HasSuffix(host, []byte(":80")) || string(scheme) == "https" && bytes.HasSuffix(host, []byte(":443"))
}

// rooted is a path that begins with a slash: without it, its first bytes would be read as part of the host.
func rooted(path string) []byte {
	if path[0] == '/' {
		return []byte(path)
	}
	return append([]byte{'/'}, path...)
}

func (x *exchange) locationPath(out []byte, r *route.Redirect) []byte {
	full := x.req.Path
	path, _ := route.SplitQuery(full)
	query := full[len(path):]
	switch {
	case r.PrefixRewrite != nil:
		full = x.rewritePrefix(*r.PrefixRewrite)
		path, _ = route.SplitQuery(full)
	case r.RegexRewrite != nil:
		full = x.rewriteRegex(r.RegexRewrite)
		path, _ = route.SplitQuery(full)
	case r.Path != "":
		path = rooted(r.Path)
		if bytes.IndexByte(path, '?') >= 0 {
			return append(out, path...) // its own query wins
		}
	}
	out = append(out, path...)
	if !r.StripQuery {
		out = append(out, query...)
	}
	return out
}
