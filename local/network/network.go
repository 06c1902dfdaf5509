// Package network connects local pods with each other: a bridge in the mesh's
// network namespace, whose address is that of the node (control plane, name
// server), and a link from it into every pod.
//
// Pods reach each other and the node; there is no way out to the machine's own
// network. Service addresses are no addresses of this network: see package
// capture. All links vanish with their namespaces.
package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"

	"weft.mesh/weft/node/netns"
)

// DefaultBridge is the name of the bridge.
const DefaultBridge = "weft0"

// Network is the node's side of the pod network.
type Network struct {
	Node   netip.Prefix // the node's address with the range of all pods
	bridge int          // link index
}

// Up brings up the loopback link and the bridge in the network namespace of
// the process, which must be one of our own: it refuses one that has other links.
func Up(bridge string, node netip.Prefix) (*Network, error) {
	if err := refuseForeign(); err != nil {
		return nil, err
	}
	if err := netns.SetLoopbackUp(); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	// Without an address of its own a bridge takes the lowest one of its ports,
	// and changes it when that port goes: pods would lose the name server until
	// their neighbour caches expire.
	attrs.HardwareAddr = hardwareAddr(node.Addr())
	br := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("network: make bridge %s (is the kernel's bridge module there?): %w", bridge, err)
	}
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("network: find bridge %s: %w", bridge, err)
	}
	addr := &netlink.Addr{IPNet: ipnet(node)}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return nil, fmt.Errorf("network: give %s the address %s: %w", bridge, node, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("network: set %s up: %w", bridge, err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return nil, fmt.Errorf("network: allow forwarding: %w", err)
	}
	return &Network{Node: node, bridge: link.Attrs().Index}, nil
}

// refuseForeign guards the machine's own network against a mistake in the
// order of starting: a namespace of ours has a loopback link and the tunnel
// devices that some kernels put into each namespace.
func refuseForeign() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("network: list links: %w", err)
	}
	for _, l := range links {
		switch l.Type() {
		case "veth", "bridge", "vlan", "bond", "tuntap", "wireguard":
			return fmt.Errorf("network: link %s (%s) is here already: this is not a network namespace of our own", l.Attrs().Name, l.Type())
		case "device":
			if l.Attrs().Flags&net.FlagLoopback == 0 && l.Attrs().Flags&net.FlagUp != 0 {
				return fmt.Errorf("network: link %s is up: this is not a network namespace of our own", l.Attrs().Name)
			}
		}
	}
	return nil
}

// Attach links a pod to the bridge: eth0 with the address ip, a default route
// by way of the node.
func (n *Network) Attach(pod *netns.Handle, ip netip.Addr) error {
	if !n.Node.Contains(ip) || ip == n.Node.Addr() {
		return fmt.Errorf("network: pod address %s is not in %s or is the node's", ip, n.Node)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = hostLink(ip)
	attrs.MasterIndex = n.bridge
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerNamespace = netlink.NsFd(pod.FD())
	// An address made from the IP: neighbours' caches stay right when an IP
	// is given to another pod.
	veth.PeerHardwareAddr = hardwareAddr(ip)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("network: make link %s: %w", attrs.Name, err)
	}
	link, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return fmt.Errorf("network: find link %s: %w", attrs.Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("network: set %s up: %w", attrs.Name, err)
	}
	return pod.Do(func() error { return n.configure(ip) })
}

// configure runs inside the pod's namespace.
func (n *Network) configure(ip netip.Addr) error {
	h, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("network: open netlink in the pod: %w", err)
	}
	defer h.Close()
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("network: find the pod's eth0: %w", err)
	}
	// Link-local IPv6 addresses would only delay programs; ::1 stays.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("network: turn IPv6 off on eth0: %w", err)
	}
	if err := h.AddrAdd(eth, &netlink.Addr{IPNet: ipnet(netip.PrefixFrom(ip, n.Node.Bits()))}); err != nil {
		return fmt.Errorf("network: give eth0 the address %s: %w", ip, err)
	}
	if err := h.LinkSetUp(eth); err != nil {
		return fmt.Errorf("network: set eth0 up: %w", err)
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: n.Node.Addr().AsSlice()}
	if err := h.RouteAdd(route); err != nil {
		return fmt.Errorf("network: route by way of %s: %w", n.Node.Addr(), err)
	}
	return nil
}

// Detach removes a pod's link; one that is gone already is no error.
func (n *Network) Detach(ip netip.Addr) error {
	link, err := netlink.LinkByName(hostLink(ip))
	if err != nil {
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) {
			return nil
		}
		return fmt.Errorf("network: find link %s: %w", hostLink(ip), err)
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("network: remove link %s: %w", hostLink(ip), err)
	}
	return nil
}

// hardwareAddr makes a locally administered address of an IP.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

// hostLink is the name of the node's end of a pod's link.
func hostLink(ip netip.Addr) string {
	b := ip.As4()
	return fmt.Sprintf("wv%02x%02x%02x%02x", b[0], b[1], b[2], b[3])
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
