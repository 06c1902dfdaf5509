package stream

import (
	"bytes"
	"testing"
)

func TestValidHost(t *testing.T) {
	for host, want := range map[string]bool{
		"a": true, "A.Example": true, "a.": true, "a_b": true, "a:": true, "a:80": true, "a:65535": true, "a:0080": true, "127.0.0.1:1": true,
		"[::1]": true, "[::1]:80": true, "[::ffff:1.2.3.4]": true, "a%20b": true, "a,b": true,
		"": false, ":": false, ":80": false, "a:x": false, "a:65536": false, "a:99999999999999999999": false, "a:-1": false, "a:+1": false,
		"a:80:81": false, "a:80 ": false, "me@a": false, "a b": false, "a/b": false, "::1": false, "[::1": false, "::1]": false, "[": false, "[]": false,
		"[:]": false, "[::1]x": false, "[::1]:x": false, "[zz]": false, "[a]b]": false, "a]": false, "a[": false, "a%": false, "a%2": false, "a%zz": false,
		"a\x00": false, "a\x80": false, "[::1%25eth0]": false,
	} {
		if got := ValidHost([]byte(host)); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestValidTarget(t *testing.T) {
	for target, want := range map[string]bool{
		"/": true, "/a%20b": true, "/a?b=%": true, "/a?b=%zz": true, "/%2F?%": true, "*": true, "http://a/%41": true, "?%": true,
		"": false, "/a b": false, "/a#b": false, "/a%": false, "/a%2": false, "/a%zz": false, "/%41%": false, "/a%2?b": false, "/\x80": false, "/\x00": false,
	} {
		if got := ValidTarget([]byte(target)); got != want {
			t.Errorf("%q: %v, want %v", target, got, want)
		}
	}
}

func TestValidProtocol(t *testing.T) {
	for proto, want := range map[string]bool{
		"websocket": true, "SPDY/3.1": true, "a/b": true,
		"": false, "/": false, "a/": false, "/1": false, "a/b/c": false, "a b": false, "a, b": false, "a\r\nb": false, "a:b": false,
	} {
		if got := ValidProtocol([]byte(proto)); got != want {
			t.Errorf("%q: %v, want %v", proto, got, want)
		}
	}
}

func TestValidValue(t *testing.T) {
	for n := range 40 {
		for at := range n {
			for _, bad := range []byte{0, '\r', '\n', 0x1f, 0x7f} {
				b := bytes.Repeat([]byte{'x'}, n)
				b[n/2] = '\t'
				b[at] = bad
				if ValidValue(b) {
					t.Errorf("%q is valid", b)
				}
				b[at] = 0xff
				if !ValidValue(b) {
					t.Errorf("%q is not valid", b)
				}
			}
		}
	}
}

func TestPlainLen(t *testing.T) {
	for n := range 40 {
		for at := range n {
			for _, c := range []byte{0, '\r', '\n', '\t', 0x1f, 0x7f} {
				b := bytes.Repeat([]byte{'x'}, n)
				b[n/2] = 0xff
				for i := at; i < n; i += 3 {
					b[i] = c
				}
				if got := PlainLen(b); got != at {
					t.Errorf("%q: %d, want %d", b, got, at)
				}
			}
		}
		if got := PlainLen(bytes.Repeat([]byte{0x80}, n)); got != n {
			t.Errorf("%d bytes: %d", n, got)
		}
	}
}

func TestPlainTarget(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte{'~'}, n)
				b[at] = byte(c)
				if plainTarget(b) && (c <= ' ' || c >= 0x7f || c == '#' || c == '%') {
					t.Errorf("%q passes", b)
				}
				if n >= 8 && !plainTarget(b) && class[c]&isTarget != 0 && c != '%' {
					t.Errorf("%q does not pass", b)
				}
			}
		}
	}
}
