package stream

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Classes of bytes.
const (
	isToken = 1 << iota
	isTarget
	isHost
)

var class = func() (t [256]uint8) {
	for c := '!'; c <= '~'; c++ {
		t[c] |= isTarget
	}
	t['#'] &^= isTarget
	alnum := "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, c := range []byte(alnum + "!#$%&'*+-.^_`|~") {
		t[c] |= isToken
	}
	for _, c := range []byte(alnum + "-._~%!$&'()*+,;=") {
		t[c] |= isHost
	}
	return t
}()

func all(b []byte, c uint8) bool {
	for _, x := range b {
		if class[x]&c == 0 {
			return false
		}
	}
	return len(b) > 0
}

// ValidToken tells whether b is a token: a method or field name (RFC 9110 section 5.6.2).
func ValidToken(b []byte) bool { return all(b, isToken) }

// ValidProtocol tells whether b is what Upgrade or :protocol may ask for: a name, with or without a
// version (RFC 9110 section 7.8).
func ValidProtocol(b []byte) bool {
	if i := bytes.IndexByte(b, '/'); i >= 0 {
		return all(b[:i], isToken) && all(b[i+1:], isToken)
	}
	return all(b, isToken)
}

// TokenByte tells whether c may be part of a token.
func TokenByte(c byte) bool { return class[c]&isToken != 0 }

// ValidTarget tells whether b may be a request target: visible ASCII without
// '#', and not empty. Bytes above ASCII, and broken escapes in the path, are refused, because
// servers disagree about them; many take a broken escape in the query for what it is.
func ValidTarget(b []byte) bool {
	if plainTarget(b) {
		return true
	}
	if !all(b, isTarget) {
		return false
	}
	i := bytes.IndexByte(b, '%')
	if i < 0 {
		return true
	}
	for ; i < len(b) && b[i] != '?'; i++ {
		if b[i] == '%' && !(i+2 < len(b) && hex(b[i+1]) && hex(b[i+2])) {
			return bytes.IndexByte(b[:i], '?') >= 0
		}
	}
	return true
}

// plainTarget is true only if all bytes are of the printable ones in ASCII, without '#' and '%'.
func plainTarget(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	bad := notTarget(binary.LittleEndian.Uint64(b[len(b)-8:]))
	for i := 0; i < len(b)-8; i += 8 {
		bad |= notTarget(binary.LittleEndian.Uint64(b[i:]))
	}
	return bad == 0
}

func notTarget(x uint64) uint64 {
	del, hash, percent := x^0x7f*ones, x^'#'*ones, x^'%'*ones
	return (x | (x - 0x21*ones) | (del-ones)&^del | (hash-ones)&^hash | (percent-ones)&^percent) & highs
}

// ValidHost tells whether b is host [ ":" port ] without user info (RFC 3986 section 3.2), and not
// empty: an IP literal in brackets, or a name with whole escapes; a port of up to 65535, which may be empty.
func ValidHost(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	if b[0] == '[' {
		return validLiteral(b)
	}
	plain := 0
	for plain < len(b) && class[b[plain]]&isHost != 0 && b[plain] != '%' {
		plain++
	}
	for i := plain; i < len(b); i++ {
		switch c := b[i]; {
		case c == ':':
			return i > 0 && validPort(b[i+1:])
		case class[c]&isHost == 0:
			return false
		case c == '%' && !(i+2 < len(b) && hex(b[i+1]) && hex(b[i+2])):
			return false
		}
	}
	return true
}

// validLiteral tells whether b is an IPv6 address in brackets, with or without a port. Zones and
// future versions of IP are refused, as servers do not know them.
func validLiteral(b []byte) bool {
	end, colons := 1, 0
	for ; end < len(b) && b[end] != ']'; end++ {
		switch c := b[end]; {
		case c == ':':
			colons++
		case !hex(c) && c != '.':
			return false
		}
	}
	if end >= len(b) || colons < 2 {
		return false
	}
	rest := b[end+1:]
	return len(rest) == 0 || rest[0] == ':' && validPort(rest[1:])
}

func validPort(b []byte) bool {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// ValidValue tells whether b may be a field value: no control characters but
// tab (RFC 9110 section 5.5). It looks at eight bytes at a time; the last eight may overlap those before.
func ValidValue(b []byte) bool {
	if len(b) < 8 {
		return validSlow(b)
	}
	last := binary.LittleEndian.Uint64(b[len(b)-8:])
	bad := suspicious(last)
	for i := 0; i < len(b)-8; i += 8 {
		bad |= suspicious(binary.LittleEndian.Uint64(b[i:]))
	}
	return bad == 0 || validSlow(b)
}

// suspicious is not 0 if one of eight bytes may be a control character; a tab is one.
func suspicious(x uint64) uint64 {
	del := x ^ (0x7f * ones)
	return ((x - 0x20*ones) | (del-ones)&^del) &^ x & highs
}

func validSlow(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// PlainLen is how many bytes of text b begins with: it ends at the first control character.
func PlainLen(b []byte) int {
	i, p := 0, unsafe.Pointer(unsafe.SliceData(b))
	for ; i <= len(b)-8; i += 8 { // without the checks of bounds that the compiler would put in: it is most of what reading a head costs
		x := *(*[8]byte)(unsafe.Add(p, i))
		if bad := suspicious(binary.LittleEndian.Uint64(x[:])); bad != 0 {
			return i + bits.TrailingZeros64(bad)/8
		}
	}
	for ; i < len(b) && b[i] >= ' ' && b[i] != 0x7f; i++ {
	}
	return i
}

// TokenLen is the length of the token that b begins with, which may be 0.
func TokenLen(b []byte) int {
	for i, c := range b {
		if class[c]&isToken == 0 {
			return i
		}
	}
	return len(b)
}
