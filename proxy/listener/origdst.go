package listener

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// soOriginalDst is SO_ORIGINAL_DST (linux/netfilter_ipv4.h) and IP6T_SO_ORIGINAL_DST: the same number.
const soOriginalDst = 80

// originalDst asks conntrack where a redirected connection was going. ok is false
// if it was not redirected, or is no TCP socket.
func originalDst(c net.Conn) (dst netip.AddrPort, ok bool) {
	t, is := c.(*net.TCPConn)
	if !is {
		return dst, false
	}
	rc, err := t.SyscallConn()
	if err != nil {
		return dst, false
	}
	local := addrPort(c.LocalAddr())
	cerr := rc.Control(func(fd uintptr) {
		if local.Addr().Is4() {
			dst, err = originalDst4(int(fd))
		} else {
			dst, err = originalDst6(int(fd))
		}
	})
	return dst, cerr == nil && err == nil && dst.IsValid()
}

// originalDst4 gets a sockaddr_in through an option of x/sys whose value is long
// enough: family (2), port (2), address (4), padding.
func originalDst4(fd int) (netip.AddrPort, error) {
	v, err := unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := v.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

// originalDst6 gets a sockaddr_in6, which begins an ip6_mtuinfo.
func originalDst6(fd int) (netip.AddrPort, error) {
	v, err := unix.GetsockoptIPv6MTUInfo(fd, unix.IPPROTO_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], v.Addr.Port) // the field holds network order
	return netip.AddrPortFrom(netip.AddrFrom16(v.Addr.Addr).Unmap(), binary.BigEndian.Uint16(port[:])), nil
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
