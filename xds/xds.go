// Package xds is the wire contract that both planes share: type URLs, resource
// names, node IDs, versioned resources and the order in which types are sent.
// It holds no state, does no I/O and knows neither plane.
package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Type URLs of the resources that we serve and take.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	// NameTableType is Istio's NDS: the names of the mesh with their addresses, one resource, see package xds/nds.
	// Only proxies that answer their workload's DNS queries subscribe to it.
	NameTableType = "type.googleapis.com/istio.networking.nds.v1.NameTable"
)

// NameTableName is the name of the one resource of NameTableType. Istio's agent looks at none.
const NameTableName = "names"

// PushOrder is make-before-break: clusters before the endpoints, listeners and
// routes that refer to them (Envoy xDS protocol, "eventual consistency considerations"). Types
// that are not in it come after it: a name is told after the listeners at its addresses.
var PushOrder = []string{ClusterType, EndpointType, ListenerType, RouteType, SecretType}

// WriteBuffer is how much a client of ours says at once. It says little but when it comes back, and a TLS record that is
// larger makes the server keep a buffer of twice that size for the connection as long as it lives (crypto/tls gives none
// back): 28 KB instead of 5, for each of thousands.
const WriteBuffer = 2 << 10

// ShortName is CDS, EDS, … for a type URL; the URL itself if unknown.
func ShortName(typeURL string) string {
	switch typeURL {
	case ClusterType:
		return "CDS"
	case EndpointType:
		return "EDS"
	case ListenerType:
		return "LDS"
	case RouteType:
		return "RDS"
	case SecretType:
		return "SDS"
	case NameTableType:
		return "NDS"
	}
	return typeURL
}

// Resource is one encoded resource. It is immutable and shared between all
// proxies that need the same bytes; equal content is the same pointer.
type Resource struct {
	Name    string
	Version string // hash of Body
	TypeURL string
	Body    []byte // the encoded message, as goes into Any.value
}

// NewResource makes a resource and its version.
func NewResource(typeURL, name string, body []byte) *Resource {
	return &Resource{Name: name, Version: Version(body), TypeURL: typeURL, Body: body}
}

// Version is a short content hash.
func Version(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// Snapshot is one version of the whole mesh as proxies can ask for it. It is
// immutable and safe for concurrent use.
type Snapshot interface {
	// Version grows with every change: "2026-11-21T10:00:00Z/17".
	Version() string
	// Resources returns what the node gets of a type, sorted by name: all of
	// it with nil names (wildcard), else those of the names that exist. An
	// error means that this node cannot be served (said in status). Neither names
	// nor the answer may be changed after.
	Resources(n *Node, typeURL string, names []string) ([]*Resource, error)
	// Unchanged tells cheaply that the node's resources of a type are the
	// same as in prev (false may be said when in doubt).
	Unchanged(prev Snapshot, n *Node, typeURL string) bool
}

// NodeType is the first part of a node ID.
type NodeType string

const (
	Sidecar NodeType = "sidecar"
	Router  NodeType = "router" // gateway
)

// Node is a proxy as it introduced itself and as its certificate proved it.
type Node struct {
	ID        string // raw
	Type      NodeType
	IP        netip.Addr
	Name      string // pod
	Namespace string
	Domain    string // DNS domain: default.svc.cluster.local
	Cluster   string
	Locality  string // region/zone/subzone, what the proxy says itself
	Metadata  Metadata
	// Generator is "" for proxies that take Envoy's resources, "grpc" for proxyless gRPC.
	Generator string
	// WeftProxy tells that the client is weft-proxy (user agent), false: Envoy or gRPC.
	WeftProxy bool
	// Patches tells that the client takes resources as patches of what it has, see xds/patch.
	Patches bool
	Version string // of the client
	// Verified tells that the stream proved the node's namespace and service account. Only then does it get keys.
	Verified bool
	// ReadsSecrets tells that the proven service account may read the Secrets of its namespace: only then a gateway gets the
	// certificates of Istio's Gateways (credentialName). Those of the Gateway API need a reference or a ReferenceGrant instead.
	ReadsSecrets bool
}

// Metadata is the part of the node's metadata that translation depends on.
type Metadata struct {
	Labels           map[string]string
	Namespace        string
	ServiceAccount   string
	WorkloadName     string
	ClusterID        string
	MeshID           string
	Network          string
	InterceptionMode string
	DNSCapture       bool              // the workload's names come from the mesh (Istio's DNS_CAPTURE)
	Raw              map[string]string // other string values
}

// NodeID formats sidecar~ip~name.namespace~domain.
func NodeID(t NodeType, ip netip.Addr, name, namespace, domain string) string {
	return fmt.Sprintf("%s~%s~%s.%s~%s", t, ip, name, namespace, domain)
}

// ParseNodeID reads a node ID in Istio's form.
func ParseNodeID(id string) (*Node, error) {
	p := strings.Split(id, "~")
	if len(p) != 4 {
		return nil, fmt.Errorf("node id %q: want type~ip~name.namespace~domain", id)
	}
	ip, err := netip.ParseAddr(p[1])
	if err != nil {
		return nil, fmt.Errorf("node id %q: address: %w", id, err)
	}
	t := NodeType(p[0])
	if t != Sidecar && t != Router {
		return nil, fmt.Errorf("node id %q: type %q: want sidecar or router", id, p[0])
	}
	i := strings.LastIndexByte(p[2], '.')
	if i <= 0 || i == len(p[2])-1 {
		return nil, fmt.Errorf("node id %q: want name.namespace in the third part", id)
	}
	return &Node{ID: id, Type: t, IP: ip, Name: p[2][:i], Namespace: p[2][i+1:], Domain: p[3]}, nil
}

// OutboundCluster is Istio's name of a service's cluster: outbound|80|v1|host.
func OutboundCluster(port uint16, subset, host string) string {
	return "outbound|" + strconv.Itoa(int(port)) + "|" + subset + "|" + host
}

// InboundCluster is Istio's name of a local port's cluster: inbound|8080||.
func InboundCluster(port uint16) string {
	return "inbound|" + strconv.Itoa(int(port)) + "||"
}

// ParseCluster splits direction|port|subset|host.
func ParseCluster(name string) (direction string, port uint16, subset, host string, ok bool) {
	p := strings.Split(name, "|")
	if len(p) != 4 {
		return "", 0, "", "", false
	}
	n, err := strconv.ParseUint(p[1], 10, 16)
	if err != nil {
		return "", 0, "", "", false
	}
	return p[0], uint16(n), p[2], p[3], true
}

// SNI is the server name of auto mTLS: outbound_.80_.v1_.host.
func SNI(port uint16, subset, host string) string {
	return "outbound_." + strconv.Itoa(int(port)) + "_." + subset + "_." + host
}

// Names that tools know.
const (
	ListenerVirtualOutbound = "virtualOutbound"
	ListenerVirtualInbound  = "virtualInbound"
	ClusterPassthrough      = "PassthroughCluster"
	ClusterBlackHole        = "BlackHoleCluster"
	ClusterInboundPass      = "InboundPassthroughCluster"
	RouteBlockAll           = "block_all"
	RouteAllowAny           = "allow_any"
	SecretWorkload          = "default"
	SecretRoot              = "ROOTCA"
	UserAgent               = "weft-proxy"
	MetadataIstio           = "istio"
	MetadataTransport       = "envoy.transport_socket_match"
	// MetadataWeft holds what routes say to weft-proxy only; an Envoy passes it by.
	MetadataWeft = "weft.mesh"
	// MetadataDropPort (a bool under MetadataWeft) leaves the port out of a redirect's Location, where port_redirect
	// names the scheme's default.
	MetadataDropPort = "redirect_without_port"
	// MetadataByAddress (a bool under MetadataWeft, of a route configuration) routes requests for a host that no virtual host but
	// "*" has by the address that was called, where a virtual host has it.
	MetadataByAddress = "route_by_address"
)

// ALPN protocols of mTLS between sidecars.
var (
	ALPNMeshTCP  = []string{"istio-peer-exchange", "istio"}
	ALPNMeshHTTP = []string{"istio-http/1.1", "istio-http/1.0", "istio-h2"} // by protocol, see translate
)

// ListenerName is Istio's name: 0.0.0.0_80, 10.96.0.7_6379.
func ListenerName(a netip.AddrPort) string {
	return a.Addr().String() + "_" + strconv.Itoa(int(a.Port()))
}
