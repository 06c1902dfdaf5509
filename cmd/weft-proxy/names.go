package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"weft.mesh/weft/node/dns"
	"weft.mesh/weft/proxy/server"
	"weft.mesh/weft/xds/nds"
)

// fileResolvConf is where kubelet writes the pod's name servers and search domains.
const fileResolvConf = "etc/resolv.conf"

// askTimeout bounds the wait for each of the pod's name servers, as in Istio.
const askTimeout = 5 * time.Second

// namesFromEnvironment tells whether the pod's DNS queries come to the proxy. The values are Istio's.
func namesFromEnvironment(metadata map[string]string) (bool, error) {
	switch v := metadata["DNS_CAPTURE"]; v {
	case "", "false":
		return false, nil
	case "true":
	default:
		return false, fmt.Errorf("%sDNS_CAPTURE %q: want true or false", metadataPrefix, v)
	}
	// Allocated addresses are told wherever names come from the mesh: Istio's default since its controller allocates them.
	if v := metadata["DNS_AUTO_ALLOCATE"]; v != "" && v != "true" {
		return false, fmt.Errorf("%sDNS_AUTO_ALLOCATE %q: want true, or remove it; the label networking.istio.io/enable-autoallocate-ip: \"false\" keeps a ServiceEntry without an address",
			metadataPrefix, v)
	}
	return true, nil
}

// nameServer is dns.Server as server.NameServer.
type nameServer struct {
	dns               *dns.Server
	namespace, domain string
}

// newNameServer makes the server that answers the queries of a pod in a namespace, and asks the servers of
// its resolv.conf for what the mesh does not know.
func newNameServer(resolvConf, namespace, domain string) (*nameServer, error) {
	conf, err := dns.ReadResolvConf(resolvConf)
	if err != nil {
		return nil, fmt.Errorf("%sDNS_CAPTURE: name servers of the pod: %w", metadataPrefix, err)
	}
	s := &dns.Server{Upstreams: conf.Servers, Partial: true, Timeout: askTimeout}
	if len(conf.Search) > 0 {
		s.Search = conf.Search[0]
	}
	return &nameServer{s, namespace, domain}, nil
}

// SetTable implements server.NameServer.
func (n *nameServer) SetTable(table map[string]nds.Info) {
	hosts := make([]dns.Host, 0, len(table))
	for name, info := range table {
		h := dns.Host{Name: name, Addrs: info.IPs}
		if info.Registry == nds.Kubernetes {
			h.Short, h.Namespace = info.Shortname, info.Namespace
		}
		hosts = append(hosts, h)
	}
	n.dns.SetTable(dns.PodTable(hosts, n.namespace, n.domain))
}

// Counts implements server.NameServer.
func (n *nameServer) Counts() server.NameCounts {
	c := n.dns.Counts()
	return server.NameCounts{Requests: c.Requests, Forwarded: c.Forwarded, Failed: c.Failed, Bounds: dns.Bounds[:], Took: c.Took[:], TookSum: c.TookSum}
}

// Run implements server.NameServer.
func (n *nameServer) Run(ctx context.Context, pc net.PacketConn, ln net.Listener) error {
	return n.dns.Run(ctx, pc, ln)
}
