package listener

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sink is a connection that keeps what is written and has no answer.
type sink struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *sink) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *sink) SetDeadline(time.Time) error      { return nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Close() error                     { return nil }

// helloOf is the ClientHello that crypto/tls sends.
func helloOf(cfg *tls.Config) []byte {
	s := &sink{in: strings.NewReader("")}
	cfg.InsecureSkipVerify = true
	_ = tls.Client(s, cfg).Handshake()
	return s.out.Bytes()
}

// fragment spreads a ClientHello over records of n bytes (RFC 8446 section 5.1).
func fragment(b []byte, n int) (out []byte) {
	for frag := range slices.Chunk(b[5:], n) {
		out = append(out, 22, 3, 1, byte(len(frag)>>8), byte(len(frag)))
		out = append(out, frag...)
	}
	return out
}

// feed gives the parser byte by byte what it asks for, as a slow connection would.
func feed(b []byte) (hello, error) {
	for n, asked := 0, 0; ; n++ {
		h, need, err := parseHello(b[:n])
		if err != nil || need == 0 {
			return h, err
		}
		if need <= n || need < asked {
			return h, errors.New("parser asks for what it has")
		}
		asked = need
		if need > len(b) {
			return h, io.ErrUnexpectedEOF
		}
	}
}

func TestClientHello(t *testing.T) {
	full := helloOf(&tls.Config{ServerName: "WWW.Example.com", NextProtos: []string{"istio-http/1.1", "h2"}})
	change := func(at int, v byte) []byte {
		b := slices.Clone(full)
		b[at] = v
		return b
	}
	tests := []struct {
		name string
		in   []byte
		want hello
		err  error
	}{
		{"name and protocols", full, hello{sni: "www.example.com", alpn: []string{"istio-http/1.1", "h2"}}, nil},
		{"neither", helloOf(&tls.Config{}), hello{}, nil},
		{"TLS 1.2", helloOf(&tls.Config{ServerName: "a", MaxVersion: tls.VersionTLS12}), hello{sni: "a"}, nil},
		{"spread over records", fragment(full, 100), hello{sni: "www.example.com", alpn: []string{"istio-http/1.1", "h2"}}, nil},
		{"spread inside the handshake header", fragment(full[:20], 2)[:0], hello{}, io.ErrUnexpectedEOF},
		{"more records than anyone needs", fragment(full, 3), hello{}, errHello},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), hello{}, errNotTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, hello{}, errNotTLS},
		{"another handshake message", change(5, 2), hello{}, errNotTLS},
		{"alert instead of handshake", change(0, 21), hello{}, errNotTLS},
		{"a message longer than the bound", change(6, 1), hello{}, errHello},
		{"empty record", []byte{22, 3, 1, 0, 0}, hello{}, errHello},
		{"session id longer than 32", change(5+4+34, 33), hello{}, errHello},
		{"odd cipher suites", change(5+4+34+1+32+1, 3), hello{}, errHello},
		{"cut off", full[:len(full)-1], hello{}, io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := feed(tt.in)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(hello{})); d != "" && tt.err == nil {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestHTTPInspector(t *testing.T) {
	tests := []struct {
		name, in, want string
		more           bool
	}{
		{"nothing yet", "", "", true},
		{"a request", "GET /productpage HTTP/1.1\r\n", "http/1.1", false},
		{"a method of its own", "PROPFIND / HTTP/1.1\r\nHost: x\r\n", "http/1.1", false},
		{"an old request", "GET / HTTP/1.0\r\n", "http/1.0", false},
		{"an empty line before", "\r\nGET / HTTP/1.1\r\n", "http/1.1", false},
		{"a bare line feed", "GET / HTTP/1.1\n", "http/1.1", false},
		{"HTTP/2", http2Preface, "h2c", false},
		{"the beginning of HTTP/2", "PRI * HTTP/2.0\r\n", "", true},
		{"half a method", "GE", "", true},
		{"half a line", "GET /a", "", true},
		{"HTTP/0.9", "GET /\r\n", "", false},
		{"a later version", "GET / HTTP/3.0\r\n", "", false},
		{"redis", "*1\r\n$4\r\nPING\r\n", "", false},
		{"redis inline", "PING\r\n", "", false},
		{"memcached", "get key\r\n", "", false},
		{"SMTP", "EHLO example.com\r\n", "", false},
		{"binary", "\x00\x01\x02", "", false},
		{"binary after a word", "abc \x00\x01", "", false},
		{"no method is so long", strings.Repeat("A", maxMethod+1), "", false},
		{"a very long path of a known method", "GET /" + strings.Repeat("a", maxRequestLine), "http/1.1", false},
		{"a very long line of something else", "AUTH /" + strings.Repeat("a", maxRequestLine), "", false},
		{"a space first", " GET / HTTP/1.1\r\n", "", false},
	}
	for _, tt := range tests {
		got, more := inspectHTTP([]byte(tt.in))
		if got != tt.want || more != tt.more {
			t.Errorf("%s: %q, more %t; want %q, more %t", tt.name, got, more, tt.want, tt.more)
		}
	}
}

func TestProxyProtocol(t *testing.T) {
	v2 := proxyV2Signature + "\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x0f\xa0\x00\x50"
	addrs := proxyHeader{src: netip.MustParseAddrPort("10.0.0.1:4000"), dst: netip.MustParseAddrPort("10.0.0.2:80")}
	with := func(h proxyHeader, size int, local bool) proxyHeader {
		h.size, h.local = size, local
		return h
	}
	tests := []struct {
		name, in string
		want     proxyHeader
		need     bool
		bad      bool
	}{
		{"version 1", "PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\nGET /", with(addrs, 38, false), false, false},
		{"version 1, IPv6", "PROXY TCP6 fd00::1 fd00::2 4000 80\r\n",
			proxyHeader{36, false, netip.MustParseAddrPort("[fd00::1]:4000"), netip.MustParseAddrPort("[fd00::2]:80")}, false, false},
		{"version 1, unknown", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", proxyHeader{size: 35, local: true}, false, false},
		{"version 2", v2 + "GET /", with(addrs, 28, false), false, false},
		{"version 2 with TLVs", v2[:14] + "\x00\x10" + v2[16:] + "\x04\x00\x01\x00", with(addrs, 32, false), false, false},
		{"version 2, local", proxyV2Signature + "\x20\x00\x00\x00", proxyHeader{size: 16, local: true}, false, false},
		{"nothing yet", "", proxyHeader{}, true, false},
		{"half of version 1", "PROXY TCP4 10.0", proxyHeader{}, true, false},
		{"half of version 2", v2[:20], proxyHeader{}, true, false},
		{"no header", "GET / HTTP/1.1\r\n", proxyHeader{}, false, true},
		{"family and address differ", "PROXY TCP4 fd00::1 fd00::2 1 2\r\n", proxyHeader{}, false, true},
		{"port too large", "PROXY TCP4 10.0.0.1 10.0.0.2 70000 80\r\n", proxyHeader{}, false, true},
		{"port with a zero before it", "PROXY TCP4 10.0.0.1 10.0.0.2 080 80\r\n", proxyHeader{}, false, true},
		{"two spaces", "PROXY TCP4  10.0.0.1 10.0.0.2 1 80\r\n", proxyHeader{}, false, true},
		{"a line without end", "PROXY TCP4 " + strings.Repeat("1", 200), proxyHeader{}, false, true},
		{"version 2 over UDP", v2[:13] + "\x12" + v2[14:], proxyHeader{}, false, true},
		{"version 3", v2[:12] + "\x31" + v2[13:], proxyHeader{}, false, true},
		{"version 2 with a huge length", v2[:14] + "\xff\xff" + v2[16:], proxyHeader{}, false, true},
		{"version 2, addresses cut off", proxyV2Signature + "\x21\x11\x00\x04\x0a\x00\x00\x01", proxyHeader{}, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, need, err := parseProxy([]byte(tt.in))
			if (err != nil) != tt.bad || (need > 0) != tt.need {
				t.Fatalf("need %d, error %v; want need %t, error %t", need, err, tt.need, tt.bad)
			}
			if err == nil && need == 0 && got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
