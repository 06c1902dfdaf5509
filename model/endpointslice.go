package model

import "net/netip"

// Kinds that only Kubernetes delivers.
const (
	KindEndpointSlice Kind = "EndpointSlice"
	KindNode          Kind = "Node"
)

// EndpointSlice is a part of a Service's addresses as Kubernetes keeps them
// (discovery.k8s.io/v1). With [Mesh].EndpointSlices the World takes a Service's
// endpoints from its slices, and from nothing else.
type EndpointSlice struct {
	Meta
	Service   string // name of the Service in the slice's namespace; empty: of none, and of no effect
	Ports     []SlicePort
	Endpoints []SliceEndpoint
}

// SlicePort is a port that all endpoints of a slice have.
type SlicePort struct {
	Name   string // of the Service's port
	Number uint16 // on the pod; 0: every port, the Service's own number counts
	UDP    bool
}

// SliceEndpoint is one pod, or one address that somebody wrote into a slice.
type SliceEndpoint struct {
	Addresses []netip.Addr
	// Ready takes traffic (also while it terminates: publishNotReadyAddresses asks for that).
	Ready bool
	// Serving passes its readiness probe even if it terminates.
	Serving bool
	// Terminating and not Ready finishes what it has, and takes nothing new.
	Terminating bool
	Node        string
	Zone        string // of topology.kubernetes.io/zone; used if the node is not known
	// Pod is the name of the pod in the slice's namespace; empty: the address is looked up. An endpoint
	// whose pod is not known yet is held back: without it nobody could tell whether it takes mTLS.
	Pod string
}

// Node is a machine, known for where it is.
type Node struct {
	Meta
	Region, Zone, Subzone string // topology.kubernetes.io/region and /zone, topology.istio.io/subzone
}

// Locality is region/zone/subzone, shortened from the right where parts are empty.
func (n *Node) Locality() string {
	if n == nil {
		return ""
	}
	s := n.Region + "/" + n.Zone + "/" + n.Subzone
	for len(s) > 0 && s[len(s)-1] == '/' {
		s = s[:len(s)-1]
	}
	return s
}
