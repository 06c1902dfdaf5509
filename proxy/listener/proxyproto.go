package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of the PROXY protocol: a version 1 line, and a version 2 header with its TLVs.
const (
	maxProxyV1 = 107
	maxProxyV2 = 4 << 10
)

const (
	proxyV1Signature = "PROXY "
	proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"
)

var errProxy = errors.New("malformed proxy protocol header")

// proxyHeader is what a load balancer says of the connection it forwards.
type proxyHeader struct {
	size     int  // bytes to skip
	local    bool // made by the balancer itself (LOCAL, UNKNOWN): no addresses
	src, dst netip.AddrPort
}

// proxyVersion tells which version of the PROXY protocol the first bytes begin; 0: none.
// need > 0 asks for at least so many bytes in all, while it may still be either.
func proxyVersion(b []byte) (version uint8, need int) {
	for v, signature := range [...]string{1: proxyV1Signature, 2: proxyV2Signature} {
		if v == 0 {
			continue
		}
		n := min(len(b), len(signature))
		switch {
		case string(b[:n]) != signature[:n]:
		case n == len(signature):
			return uint8(v), 0
		default:
			return 0, n + 1
		}
	}
	return 0, 0
}

// parseProxy reads a PROXY protocol header of version 1 or 2 from the first bytes.
// need > 0 asks for at least so many bytes in all.
func parseProxy(b []byte) (h proxyHeader, need int, err error) {
	if len(b) == 0 {
		return h, 1, nil
	}
	if b[0] == proxyV2Signature[0] {
		return parseProxyV2(b)
	}
	return parseProxyV1(b)
}

func parseProxyV1(b []byte) (h proxyHeader, need int, err error) {
	n := min(len(b), len(proxyV1Signature))
	if string(b[:n]) != proxyV1Signature[:n] {
		return h, 0, fmt.Errorf("%w: begins with neither version", errProxy)
	}
	end := bytes.Index(b[:min(len(b), maxProxyV1)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxProxyV1 {
			return h, 0, fmt.Errorf("%w: line longer than %d bytes", errProxy, maxProxyV1)
		}
		return h, len(b) + 1, nil
	}
	h.size = end + 2
	f := strings.Split(string(b[:end]), " ")
	if f[1] == "UNKNOWN" {
		h.local = true
		return h, 0, nil
	}
	if len(f) != 6 || (f[1] != "TCP4" && f[1] != "TCP6") {
		return h, 0, fmt.Errorf("%w: want PROXY TCP4|TCP6 source destination port port", errProxy)
	}
	if h.src, err = proxyAddr(f[2], f[4], f[1] == "TCP4"); err != nil {
		return h, 0, err
	}
	h.dst, err = proxyAddr(f[3], f[5], f[1] == "TCP4")
	return h, 0, err
}

func proxyAddr(ip, port string, v4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%w: address", errProxy)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || (len(port) > 1 && port[0] == '0') {
		return netip.AddrPort{}, fmt.Errorf("%w: port", errProxy)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

func parseProxyV2(b []byte) (h proxyHeader, need int, err error) {
	n := min(len(b), len(proxyV2Signature))
	if string(b[:n]) != proxyV2Signature[:n] {
		return h, 0, fmt.Errorf("%w: begins with neither version", errProxy)
	}
	if len(b) < 16 {
		return h, 16, nil
	}
	size := 16 + int(binary.BigEndian.Uint16(b[14:]))
	if size > maxProxyV2 {
		return h, 0, fmt.Errorf("%w: %d bytes, at most %d", errProxy, size, maxProxyV2)
	}
	if len(b) < size {
		return h, size, nil
	}
	h.size = size
	switch b[12] {
	case 0x20:
		h.local = true
		return h, 0, nil
	case 0x21:
	default:
		return h, 0, fmt.Errorf("%w: version and command %#x", errProxy, b[12])
	}
	return h, 0, h.addresses(b[13], b[16:size])
}

// typeCRC32C is PP2_TYPE_CRC32C (section 2.2.4 of the specification).
const typeCRC32C = 0x03

// checkTLVs walks the vectors after the addresses of a version 2 header that parseProxy
// took: each must fit, and a checksum must be right. Nothing else of them is
// used; together they are bounded by maxProxyV2.
func checkTLVs(header []byte) error {
	at := 16 + 2*4 + 4
	if header[13] == 0x21 {
		at = 16 + 2*16 + 4
	}
	for at < len(header) {
		if len(header)-at < 3 {
			return fmt.Errorf("%w: a TLV of %d bytes", errProxy, len(header)-at)
		}
		kind, n := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		at += 3
		if len(header)-at < n {
			return fmt.Errorf("%w: TLV %#x of %d bytes is cut off", errProxy, kind, n)
		}
		if kind == typeCRC32C {
			if n != 4 || checksum(header, at) != binary.BigEndian.Uint32(header[at:]) {
				return fmt.Errorf("%w: wrong checksum", errProxy)
			}
		}
		at += n
	}
	return nil
}

// checksum is CRC32c of the header with its checksum, at that place, as zero.
func checksum(header []byte, at int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, header[:at])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, header[at+4:])
}

func (h *proxyHeader) addresses(family byte, b []byte) error {
	var n int
	switch family {
	case 0x11:
		n = 4
	case 0x21:
		n = 16
	case 0x00:
		h.local = true
		return nil
	default:
		return fmt.Errorf("%w: address family and protocol %#x, want TCP over IPv4 or IPv6", errProxy, family)
	}
	if len(b) < 2*n+4 {
		return fmt.Errorf("%w: addresses are cut off", errProxy)
	}
	src, _ := netip.AddrFromSlice(b[:n])
	dst, _ := netip.AddrFromSlice(b[n : 2*n])
	h.src = netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(b[2*n:]))
	h.dst = netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(b[2*n+2:]))
	return nil
}
