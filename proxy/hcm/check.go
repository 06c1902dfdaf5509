package hcm

import (
	"bytes"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// check refuses requests that must not be routed, and normalises the path.
func (x *exchange) check() *filter.Reply {
	req, cfg := x.req, x.m.cfg
	if req.Proto == stream.HTTP10 && !cfg.AllowHTTP10 {
		return &replyLowVersion
	}
	if len(req.Authority) == 0 { // of HTTP/1.0 too: the upstream needs a host, and there is none to make up
		return &replyNoHost
	}
	if disguised(req.Method) {
		return &replyBadMethod
	}
	if !req.AsRead() && !validAuthority(req.Authority) { // whatever a codec vouches for is valid here
		return &replyBadHost
	}
	if cfg.StripHostPort {
		req.Authority = stripPort(req.Authority)
	}
	if string(req.Method) == "CONNECT" && len(req.Upgrade) == 0 {
		if !cfg.AllowConnect && !listed(cfg.Upgrades, connectUpgrade) {
			return &replyUpgrade
		}
		return nil // the route says more: it may allow it, or not
	}
	if len(req.Path) == 0 {
		return &replyNoPath
	}
	if req.Path[0] != '/' {
		if string(req.Path) == "*" && string(req.Method) == "OPTIONS" {
			return nil
		}
		return &replyAbsolute
	}
	return x.normalise(cfg)
}

func (x *exchange) normalise(cfg *config.HTTPManager) *filter.Reply {
	req := x.req
	if i := bytes.IndexByte(req.Path, '#'); i >= 0 { // a fragment is never sent to a server (RFC 9110 section 7.1)
		req.Path = req.Path[:i]
	}
	opt := pathOptions{normalise: cfg.Normalize, merge: cfg.MergeSlashes, slashes: cfg.EscapedSlashes}
	if opt == (pathOptions{}) {
		x.info.OrigPath = req.Path
		return nil
	}
	start := len(x.buf)
	out, res := normalise(x.buf, req.Path, opt)
	switch res {
	case pathBad:
		return &replyBadPath
	case pathRedirect:
		return x.slashRedirect(out[start:])
	case pathChanged:
		x.buf = out
		req.Path = out[start:len(out):len(out)]
	}
	x.info.OrigPath = req.Path
	return nil
}

// slashRedirect sends the client to the path with unescaped slashes (UNESCAPE_AND_REDIRECT).
func (x *exchange) slashRedirect(path []byte) *filter.Reply {
	return &filter.Reply{Status: 307, Details: "path_normalization_failed", Headers: []filter.Header{{Name: "location", Value: string(path)}}}
}

// disguised tells that a method is a standard one but for its case. Methods are
// case-sensitive (RFC 9110 section 9.1), but an application that is lax about
// it would do what a policy on the standard name forbids.
func disguised(m []byte) bool {
	for _, c := range m {
		if 'a' <= c && c <= 'z' {
			return listed(standardMethods, m)
		}
	}
	return false
}

var standardMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// validAuthority accepts the bytes that may stand in a host and port (RFC 3986 section 3.2.2). User information is refused.
func validAuthority(a []byte) bool {
	for _, c := range a {
		if !inAuthority[c] {
			return false
		}
	}
	return true
}

var inAuthority = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || bytes.IndexByte([]byte("-._~!$&'()*+,;=:[]%"), b) >= 0
	}
	return t
}()

// stripPort cuts ":port" off.
func stripPort(a []byte) []byte {
	for i := len(a) - 1; i > 0; i-- {
		if a[i] == ':' {
			return a[:i]
		}
		if a[i] < '0' || a[i] > '9' {
			return a
		}
	}
	return a
}
