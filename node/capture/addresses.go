package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Addresses are those of the links of the calling thread's namespace that others can reach.
func Addresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the pod's addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() {
			out = append(out, ip.Unmap())
		}
	}
	return out, nil
}

// PodAddress is the IPv4 address of a pod. A pod that others reach by IPv6 too is refused:
// that traffic would pass by the proxy and its policies.
func PodAddress(addrs []netip.Addr) (netip.Addr, error) {
	var v4 netip.Addr
	for _, a := range addrs {
		switch {
		case !a.Is4():
			return v4, fmt.Errorf("the pod has the IPv6 address %s: IPv6 is not captured and would pass by the proxy; use a Service and pods of one family, IPv4", a)
		case !v4.IsValid():
			v4 = a
		}
	}
	if !v4.IsValid() {
		return v4, errors.New("the pod has no address yet: is its network set up (a host network pod needs no capture)?")
	}
	return v4, nil
}
