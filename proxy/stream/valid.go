package stream

import "encoding/binary"

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
	for _, c := range []byte(alnum + "-._~%!$&'()*+,;=:[]") {
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

// TokenByte tells whether c may be part of a token.
func TokenByte(c byte) bool { return class[c]&isToken != 0 }

// ValidTarget tells whether b may be a request target: visible ASCII without
// '#', and not empty. Bytes above ASCII are refused, because servers disagree about them.
func ValidTarget(b []byte) bool { return all(b, isTarget) }

// ValidHost tells whether b may be host [ ":" port ] without user info (RFC 3986 section 3.2), and not empty.
func ValidHost(b []byte) bool { return all(b, isHost) }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// ValidValue tells whether b may be a field value: no control characters but
// tab (RFC 9110 section 5.5). It looks at eight bytes at a time.
func ValidValue(b []byte) bool {
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		del := x ^ (0x7f * ones)
		if ((x-0x20*ones)|(del-ones)&^del)&^x&highs != 0 && !validSlow(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return validSlow(b)
}

func validSlow(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
