package testbed

import (
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
)

// Addresses of the cluster. The machine's own network namespace has routes to
// all of them: a test there reaches pods, Services and the API
// server directly, and pods reach what it listens on at [HostIP].
const (
	HostIP       = "10.99.0.1" // the machine's own end of the bridge
	ServiceRange = "10.96.0.0/16"
	PodRange     = "10.244.0.0/16"
	BalancerNet  = "10.97.0.0/24" // Services of type LoadBalancer get an address of it
	DNSServiceIP = "10.96.0.10"
	apiServiceIP = "10.96.0.1"
	bridge       = "weftk0"
	apiPort      = 6443
	maxNodes     = 8
)

// Node is a node's number, from 1. Its name is nodeN, its zone zN.
type Node int

func (n Node) String() string { return fmt.Sprintf("node%d", int(n)) }

// IP is the node's address on the bridge.
func (n Node) IP() string { return fmt.Sprintf("10.99.0.%d", int(n)+1) }

// Pods is the range of addresses of its pods.
func (n Node) Pods() string { return fmt.Sprintf("10.244.%d.0/24", int(n)) }

func (n Node) veth() string { return fmt.Sprintf("weftk%d", int(n)) }

// cgroup is the name of a node's group in every hierarchy. It tells checkouts apart: the clusters of two of
// them can run at once, each in a network namespace of its own.
func (b *Bed) cgroup(n Node) string {
	return fmt.Sprintf("weft-%s-%08x", n, crc32.ChecksumIEEE([]byte(b.Dir)))
}

// apiURL is where the API server is, from everywhere.
func apiURL() string { return fmt.Sprintf("https://%s:%d", Node(1).IP(), apiPort) }

// isBalancerIP tells whether an address is one that the balancer has.
func isBalancerIP(s string) bool {
	ip, err := netip.ParseAddr(s)
	net := netip.MustParsePrefix(BalancerNet)
	return err == nil && ip != net.Addr() && net.Contains(ip)
}

// freeBalancerIP is the lowest address of [BalancerNet] that is in nobody's hands.
func freeBalancerIP(taken []string) (string, error) {
	net := netip.MustParsePrefix(BalancerNet)
	for ip := net.Addr().Next(); net.Contains(ip); ip = ip.Next() {
		if !slices.Contains(taken, ip.String()) {
			return ip.String(), nil
		}
	}
	return "", fmt.Errorf("no address of %s is free", BalancerNet)
}
