package transport

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// proxySignature begins a version 2 header (PROXY protocol specification, section 2.2).
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// AppendProxyHeader appends a PROXY protocol header of version 1 or 2 for a TCP
// connection from one address to the other. Addresses of different families, or unknown ones, give UNKNOWN (LOCAL in version 2).
func AppendProxyHeader(b []byte, version uint8, from, to netip.AddrPort) ([]byte, error) {
	src, dst := from.Addr().Unmap(), to.Addr().Unmap()
	known := src.IsValid() && dst.IsValid() && src.Is4() == dst.Is4()
	switch version {
	case 1:
		if !known {
			return append(b, "PROXY UNKNOWN\r\n"...), nil
		}
		family := "TCP6"
		if src.Is4() {
			family = "TCP4"
		}
		return fmt.Appendf(b, "PROXY %s %s %s %d %d\r\n", family, src.WithZone(""), dst.WithZone(""), from.Port(), to.Port()), nil
	case 2:
		b = append(b, proxySignature...)
		if !known {
			return append(b, 0x20, 0x00, 0, 0), nil
		}
		family, size := byte(0x21), uint16(36)
		if src.Is4() {
			family, size = 0x11, 12
		}
		b = append(b, 0x21, family)
		b = binary.BigEndian.AppendUint16(b, size)
		b = append(b, src.AsSlice()...)
		b = append(b, dst.AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, from.Port())
		return binary.BigEndian.AppendUint16(b, to.Port()), nil
	}
	return nil, fmt.Errorf("proxy protocol version %d: want 1 or 2", version)
}
