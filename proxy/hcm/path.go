package hcm

import (
	"bytes"

	"weft.mesh/weft/proxy/config"
)

// pathOptions is how paths are normalised.
type pathOptions struct {
	normalise, merge bool
	slashes          config.EscapedSlashes
}

// pathResult is the outcome of normalisation.
type pathResult uint8

const (
	pathSame pathResult = iota
	pathChanged
	pathBad      // answer 400
	pathRedirect // answer with the normalised path
)

// normalise appends the normal form of path (the query stays as it is) to dst.
// It resolves "." and ".." segments, plain and escaped, turns '\' into '/',
// escapes what must not stand in a path ("<>^`{|}) and unescapes unreserved characters (RFC 3986 section 6.2.2; other escapes stay as they
// are, as Envoy leaves them); on demand it merges slashes and deals with
// escaped ones. Paths with %00 or control characters are bad.
func normalise(dst, path []byte, o pathOptions) ([]byte, pathResult) {
	p, query := path, []byte(nil)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		p, query = path[:i], path[i:]
	}
	if plainPath(p, o) {
		return dst, pathSame
	}
	start := len(dst)
	out, unescaped, ok := unescape(dst, p, o)
	if !ok {
		return dst, pathBad
	}
	body := out[start:]
	if o.merge {
		body = mergeSlashes(body)
	}
	if o.normalise {
		body = removeDots(body)
	}
	out = append(out[:start+len(body)], query...)
	switch {
	case unescaped && o.slashes == config.SlashesUnescapeRedirect:
		return out, pathRedirect
	case bytes.Equal(out[start:], path):
		return dst, pathSame
	}
	return out, pathChanged
}

// plainPath tells quickly that there is nothing to do.
func plainPath(p []byte, o pathOptions) bool {
	for i, c := range p {
		switch {
		case plainByte[c]:
		case c == '%' || c == '\\' || c < ' ' || c == 0x7f || o.normalise && forbidden(c):
			return false
		case c == '.' && i > 0 && p[i-1] == '/' && o.normalise:
			return false
		case c == '/' && i > 0 && p[i-1] == '/' && o.merge:
			return false
		}
	}
	return true
}

// plainByte tells the bytes that mean the same whatever the options are and whatever stands beside them.
var plainByte = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = b > ' ' && b != 0x7f && b != '%' && b != '\\' && b != '.' && b != '/' && !forbidden(b)
	}
	return t
}()

func unescape(dst, p []byte, o pathOptions) (out []byte, slashes, ok bool) {
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c < ' ' || c == 0x7f:
			return dst, false, false
		case c == '\\' && o.normalise:
			dst = append(dst, '/')
			continue
		case o.normalise && forbidden(c):
			dst = append(dst, '%', hexDigitsUpper[c>>4], hexDigitsUpper[c&15])
			continue
		case c != '%' || i+2 >= len(p) || !isHex(p[i+1]) || !isHex(p[i+2]):
			dst = append(dst, c)
			continue
		}
		switch v := unhex(p[i+1])<<4 | unhex(p[i+2]); {
		case v == 0:
			return dst, false, false
		case (v == '/' || v == '\\') && o.slashes == config.SlashesReject:
			return dst, false, false
		case (v == '/' || v == '\\') && o.slashes != config.SlashesKeep:
			dst, slashes = append(dst, '/'), true
		case unreserved(v) && o.normalise:
			dst = append(dst, v)
		default:
			dst = append(dst, p[i:i+3]...)
		}
		i += 2
	}
	return dst, slashes, true
}

// mergeSlashes works in place.
func mergeSlashes(p []byte) []byte {
	out := p[:0]
	for i, c := range p {
		if c == '/' && i > 0 && len(out) > 0 && out[len(out)-1] == '/' {
			continue
		}
		out = append(out, c)
	}
	return out
}

// removeDots is RFC 3986 section 5.2.4 in place; empty segments are kept.
func removeDots(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); {
		end := i + 1 // p[i] is '/'
		for end < len(p) && p[end] != '/' {
			end++
		}
		last := end == len(p)
		seg := p[i+1 : end]
		if j := bytes.IndexByte(seg, ';'); j > 0 && j <= 2 {
			seg = seg[:j] // application servers take "..;x" for "..": so must policies
		}
		switch {
		case len(seg) == 1 && seg[0] == '.':
			if last {
				out = append(out, '/')
			}
		case len(seg) == 2 && seg[0] == '.' && seg[1] == '.':
			out = out[:max(bytes.LastIndexByte(out, '/'), 0)]
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, p[i:end]...)
		}
		i = end
	}
	if len(out) == 0 {
		out = append(out, '/')
	}
	return out
}

// forbidden are characters that RFC 3986 allows nowhere in a path and Envoy escapes.
func forbidden(c byte) bool {
	switch c {
	case '"', '<', '>', '^', '`', '{', '|', '}':
		return true
	}
	return false
}

const hexDigitsUpper = "0123456789ABCDEF"

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
