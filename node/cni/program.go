package cni

import (
	"fmt"

	"weft.mesh/weft/node/capture"
	"weft.mesh/weft/node/netns"
)

// Program redirects the traffic of the pod in ns to its proxy, as the
// answer's annotations narrow it. It replaces what was there in one step. It needs
// CAP_NET_ADMIN, and CAP_SYS_ADMIN to enter the namespace.
func Program(ns *netns.Handle, a Answer) error {
	c := capture.Config{Users: []uint32{proxyID}, Groups: []uint32{proxyID}, Probe: true}
	var err error
	if c.Traffic, err = capture.ParseTraffic(a.Annotations); err != nil {
		return err
	}
	if a.Names {
		c.Names = &capture.Names{}
	}
	if err := ns.Do(func() error {
		addrs, err := capture.Addresses()
		if err != nil {
			return err
		}
		c.PodIP, err = capture.PodAddress(addrs)
		return err
	}); err != nil {
		return err
	}
	rules, err := capture.Plan(c)
	if err != nil {
		return err
	}
	return capture.Apply(ns, rules)
}

// check says whether the rules are there.
func check(ns *netns.Handle) error {
	ok, err := capture.Present(ns, table)
	if err == nil && !ok {
		err = fmt.Errorf("the pod's namespace has no table ip %s: its traffic passes by its proxy", table)
	}
	return err
}
