package testbed

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// makeBridge makes the bridge that joins the nodes, with the machine's own address on it.
func makeBridge() error {
	l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := netlink.LinkAdd(l); err != nil {
		return fmt.Errorf("bridge %s: %w (is another cluster up? `down` removes what is left)", bridge, err)
	}
	addr, err := netlink.ParseAddr(HostIP + "/24")
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(l, addr), netlink.LinkSetUp(l))
}

// connect makes the link between the bridge and the node whose pid 1 is pid, and routes to its pods.
func connect(n Node, pid int) error {
	b, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	v := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: n.veth(), MasterIndex: b.Attrs().Index},
		PeerName:  "eth0", PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(v); err != nil {
		return fmt.Errorf("link %s: %w", n.veth(), err)
	}
	if err := netlink.LinkSetUp(v); err != nil {
		return err
	}
	return route(n.Pods(), n.IP())
}

func route(to, via string) error {
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}); err != nil {
		return fmt.Errorf("route %s via %s: %w", to, via, err)
	}
	return nil
}

// removeLinks removes the bridge and the links to it; routes go with them.
func removeLinks() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if isOurs(l.Attrs().Name) {
			// A node's links go with its namespace, meanwhile.
			if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("link %s: %w", l.Attrs().Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func isOurs(name string) bool {
	var k int
	if name == bridge {
		return true
	}
	_, err := fmt.Sscanf(name, "weftk%d", &k)
	return err == nil
}
