package listener_test

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/listener"
	"weft.mesh/weft/proxy/stream"
)

// v2 is a version 2 header for TCP over IPv4 from 203.0.113.7:4711 to 198.51.100.1:443, with TLVs.
func v2(tlvs string) string {
	const addresses = "\xcb\x00\x71\x07\xc6\x33\x64\x01\x12\x67\x01\xbb"
	n := len(addresses) + len(tlvs)
	return "\r\n\r\n\x00\r\nQUIT\n\x21\x11" + string([]byte{byte(n >> 8), byte(n)}) + addresses + tlvs
}

// summed is v2 with a checksum, right or off by what is given.
func summed(off uint32) string {
	h := []byte(v2("\x03\x00\x04\x00\x00\x00\x00"))
	sum := crc32.Checksum(h, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(h[len(h)-4:], sum+off)
	return string(h)
}

func TestWhichProxyHeadersAreTaken(t *testing.T) {
	const v1 = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
	said, own := at("203.0.113.7:4711"), netip.AddrPort{}
	for _, tt := range []struct {
		name string
		in   config.Inspect
		send string
		want netip.AddrPort // the client; zero: the connection is closed
		bare bool           // served, with the socket's own address
	}{
		{"version 1", config.Inspect{}, v1 + "x", said, false},
		{"version 2", config.Inspect{}, v2("") + "x", said, false},
		{"version 2 with TLVs", config.Inspect{}, v2("\x02\x00\x03www\x05\x00\x01i") + "x", said, false},
		{"version 2 with a TLV that is cut off", config.Inspect{}, v2("\x02\x00\x09www") + "x", own, false},
		{"version 2 with a TLV without a length", config.Inspect{}, v2("\x02\x00") + "x", own, false},
		{"version 2 with a checksum", config.Inspect{}, summed(0) + "x", said, false},
		{"version 2 with a wrong checksum", config.Inspect{}, summed(1) + "x", own, false},
		{"version 2 with more TLVs than is bearable", config.Inspect{}, v2("\xee\x20\x00"+strings.Repeat("a", 8192)) + "x", own, false},
		{"version 2, made by the balancer itself", config.Inspect{}, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00x", own, true},
		{"version 1, unknown client", config.Inspect{}, "PROXY UNKNOWN\r\nx", own, true},
		{"no header", config.Inspect{}, "GET / HTTP/1.1\r\n", own, false},
		{"a header that ends early", config.Inspect{}, "PROXY TCP4 203", own, false},
		{"version 1 disallowed", config.Inspect{ProxyNoV1: true}, v1 + "x", own, false},
		{"version 2 disallowed", config.Inspect{ProxyNoV2: true}, v2("") + "x", own, false},
		{"version 1 where 2 is disallowed", config.Inspect{ProxyNoV2: true}, v1 + "x", said, false},
		{"without, where that is allowed", config.Inspect{ProxyOptional: true}, "GET / HTTP/1.1\r\n", own, true},
		{"with, where without is allowed", config.Inspect{ProxyOptional: true}, v2("") + "x", said, false},
		{"what looks like version 1 for long", config.Inspect{ProxyOptional: true}, "PROXX TCP4", own, true},
		{"malformed where without is allowed", config.Inspect{ProxyOptional: true}, "PROXY TCP4 203.0.113.7 198.51.100.1 04711 443\r\nx", own, false},
		{"a disallowed version is data where without is allowed", config.Inspect{ProxyOptional: true, ProxyNoV1: true}, v1 + "x", own, true},
		{"nothing in time, though the listener goes on", config.Inspect{ContinueOnTimeout: true, Timeout: time.Second}, "PROX", own, false},
		{"nothing in time where without is allowed", config.Inspect{ProxyOptional: true, ContinueOnTimeout: true, Timeout: time.Second}, "PROX", own, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, listener.Settings{})
				l := bound("edge", "0.0.0.0:80", tcpChain("all", config.ChainMatch{}))
				l.Inspect, l.Direction = tt.in, stream.Gateway
				l.Inspect.ProxyProtocol = true
				b.apply(t, l)
				c, got := b.dial(t, "10.0.0.1:80", tt.send)
				if served := tt.want.IsValid() || tt.bare; (got == "tcp:all") != served {
					t.Fatalf("served by %q, want served: %t", got, served)
				} else if !served {
					return
				}
				local := c.LocalAddr().String()
				i := b.echo.last().info
				want := tt.want
				if tt.bare {
					want = at(local)
				}
				if i.Remote != want || i.DirectRemote() != at(local) {
					t.Errorf("remote %v, direct %v; want %v and %s", i.Remote, i.DirectRemote(), want, local)
				}
				if !tt.bare && i.Local != at("198.51.100.1:443") {
					t.Errorf("local %v", i.Local)
				}
				if tt.bare && !strings.Contains(tt.send, "UNKNOWN") && tt.send[0] != '\r' {
					if first := exactly(c, len(tt.send)); first != tt.send {
						t.Errorf("the application reads %q, want all that was sent: %q", first, tt.send)
					}
				}
			})
		})
	}
}

// exactly reads n bytes.
func exactly(c io.Reader, n int) string {
	b := make([]byte, n)
	k, _ := io.ReadFull(c, b)
	return string(b[:k])
}
