// Package capture redirects a pod's TCP traffic to the proxy beside it, and its
// DNS queries if they are to be answered there.
//
// [Plan] is pure: a [Config] in, a [Ruleset] out, whose text form is what the
// nft command would print. [Apply] puts a ruleset into a network namespace
// over netlink in one transaction: either all of it is in force or nothing
// changed. Neither needs the nft command.
//
// What is redirected: TCP that the pod sends goes to the outbound port, TCP
// that reaches it from elsewhere goes to the inbound port. The proxy's own
// sockets carry a mark, or belong to its user, and are left alone, as is traffic
// inside the pod, except when the proxy itself calls the pod's own address: then the pod is the
// server of its own request, and the inbound side must see it.
//
// The package also plans the translation of service addresses for traffic
// that no proxy carries ([PlanServices]), which is kube-proxy's work in a
// cluster. IPv4 only; of UDP nothing but DNS queries is redirected to a proxy. It starts no goroutine.
package capture

import (
	"fmt"
	"net/netip"
	"strings"
)

// Ports and mark that Istio's data plane uses, and ours.
const (
	DefaultMark         = 0x539 // SO_MARK of the proxy's sockets: 1337
	DefaultOutboundPort = 15001
	DefaultInboundPort  = 15006
	NamesPort           = 15053 // where the proxy answers DNS queries
)

// maxInterfaceName is IFNAMSIZ without the closing zero.
const maxInterfaceName = 15

// Ports by which a pod finds out whether its traffic is captured: what it sends to
// InboundSource:ProbePort comes back to ProbeAnswerPort of its own, and to nothing without the
// rules. Neither is a port of the proxy, so that the question can be asked at any time.
const (
	ProbePort       = 15003
	ProbeAnswerPort = 15002 // Istio's "port to detect failures"
)

// InboundSource is the address from which the proxy calls the application in
// its own pod, so that this traffic is not taken for a new inbound connection.
var InboundSource = netip.AddrFrom4([4]byte{127, 0, 0, 6})

// proxyPorts are served by the proxy itself and never redirected inbound:
// HBONE, merged metrics, readiness, proxy metrics.
var proxyPorts = []uint16{15008, 15020, 15021, 15090}

// Config says what to capture in one pod. The zero value of every field but
// PodIP is what Istio does by default.
type Config struct {
	PodIP        netip.Addr     // the pod's address; IPv4
	Mark         uint32         // mark of the proxy's sockets; 0 means DefaultMark, or none with Users or Groups
	Users        []uint32       // user IDs whose sockets are the proxy's (Istio: 1337)
	Groups       []uint32       // group IDs whose sockets are the proxy's
	OutboundPort uint16         // 0 means DefaultOutboundPort
	InboundPort  uint16         // 0 means DefaultInboundPort
	DNS          netip.AddrPort // the pod's name server, which is left alone on TCP; may be zero
	Probe        bool           // a pod can find out whether it is captured: ProbePort
	Names        *Names         // redirect DNS queries to the proxy; nil: they go where they go
	Traffic      Traffic
}

// Names redirects queries, UDP and TCP to port 53, to the proxy's name server at NamesPort. The proxy's own
// queries leave: with Users or Groups, or a mark, they are known as all of its traffic is.
type Names struct {
	// Servers are the name servers whose queries are redirected, IPv4, at most maxItems; nil means every one.
	Servers []netip.Addr
}

// Traffic narrows what is captured, as the annotations
// traffic.sidecar.istio.io/* do.
type Traffic struct {
	// OutboundRanges are the destinations captured; nil means every one, an
	// empty slice none.
	OutboundRanges []netip.Prefix
	// OutboundPorts are captured whatever OutboundRanges says.
	OutboundPorts         []uint16
	ExcludeOutboundRanges []netip.Prefix
	ExcludeOutboundPorts  []uint16
	// InboundPorts are the ports captured; nil means every one, an empty
	// slice none.
	InboundPorts        []uint16
	ExcludeInboundPorts []uint16
	// ExcludeInterfaces are links whose traffic is left alone both ways.
	ExcludeInterfaces []string
}

func (c Config) withDefaults() Config {
	if c.Mark == 0 && len(c.Users) == 0 && len(c.Groups) == 0 {
		c.Mark = DefaultMark
	}
	if c.OutboundPort == 0 {
		c.OutboundPort = DefaultOutboundPort
	}
	if c.InboundPort == 0 {
		c.InboundPort = DefaultInboundPort
	}
	return c
}

func (c Config) validate() error {
	if !c.PodIP.Is4() {
		return fmt.Errorf("capture: pod address %q: want an IPv4 address; IPv6 pods are not supported", c.PodIP)
	}
	if c.DNS.IsValid() && !c.DNS.Addr().Is4() {
		return fmt.Errorf("capture: name server %q: want an IPv4 address", c.DNS)
	}
	if err := c.Names.validate(); err != nil {
		return err
	}
	if c.OutboundPort == c.InboundPort {
		return fmt.Errorf("capture: outbound and inbound port are both %d: they must differ", c.InboundPort)
	}
	for _, name := range c.Traffic.ExcludeInterfaces {
		if name == "" || len(name) > maxInterfaceName || strings.ContainsAny(name, "/ \t\n\"") {
			return fmt.Errorf("capture: interface %q: want the name of a link, at most %d characters", name, maxInterfaceName)
		}
	}
	for _, p := range append(append([]netip.Prefix{}, c.Traffic.OutboundRanges...), c.Traffic.ExcludeOutboundRanges...) {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("capture: outbound range %q: want an IPv4 range like 10.0.0.0/8", p)
		}
	}
	return nil
}
