// Package model holds the mesh as plain values: services, workloads, routes,
// traffic policies, gateways and security policies. It knows no protobuf, no
// Kubernetes and no I/O. Values are immutable once they are part of a World;
// whoever changes one makes a copy.
//
// Istio's VirtualService and (later) the Gateway API's routes become the same [RouteSet].
package model

import (
	"net/netip"
	"strings"
	"time"
)

// Kind of an object a source delivers.
type Kind string

const (
	KindNamespace           Kind = "Namespace"
	KindServiceAccount      Kind = "ServiceAccount"
	KindService             Kind = "Service"
	KindDeployment          Kind = "Deployment"
	KindStatefulSet         Kind = "StatefulSet"
	KindPod                 Kind = "Pod"
	KindVirtualService      Kind = "VirtualService"
	KindDestinationRule     Kind = "DestinationRule"
	KindGateway             Kind = "Gateway"
	KindServiceEntry        Kind = "ServiceEntry"
	KindWorkloadEntry       Kind = "WorkloadEntry"
	KindPeerAuthentication  Kind = "PeerAuthentication"
	KindAuthorizationPolicy Kind = "AuthorizationPolicy"
)

// Key names one object of the mesh.
type Key struct {
	Kind      Kind
	Namespace string
	Name      string
}

func (k Key) String() string {
	if k.Namespace == "" {
		return string(k.Kind) + " " + k.Name
	}
	return string(k.Kind) + " " + k.Namespace + "/" + k.Name
}

// CompareKeys orders keys by kind, namespace and name.
func CompareKeys(a, b Key) int {
	if c := strings.Compare(string(a.Kind), string(b.Kind)); c != 0 {
		return c
	}
	return CompareNames(a, b)
}

// CompareNames orders keys of one kind: by namespace and name.
func CompareNames(a, b Key) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// Meta is common to all objects.
type Meta struct {
	Key
	Labels      map[string]string
	Annotations map[string]string
	// Created orders objects where the oldest wins; ties are broken by namespace and name.
	Created time.Time
	Source  string // where it came from, for messages
}

// Object is any value of this package that a source delivers.
type Object interface{ ObjectMeta() *Meta }

// ObjectMeta returns the metadata.
func (m *Meta) ObjectMeta() *Meta { return m }

// Mesh holds mesh-wide settings (the part of Istio's MeshConfig that we honour).
type Mesh struct {
	TrustDomain     string // default cluster.local
	Domain          string // DNS domain of services, default cluster.local
	RootNamespace   string // default weft-system; istio-system is honoured too
	RegistryOnly    bool   // outboundTrafficPolicy REGISTRY_ONLY; default ALLOW_ANY
	DisableAutoMTLS bool
	AccessLogFile   string // "" off
	AccessLogFormat string // "" Istio's default text
	AccessLogJSON   bool
	ConnectTimeout  time.Duration // default 10 s
	TraceSampling   float64       // percent, default 1
	ClusterID       string        // default Kubernetes
	LocalityLB      *LocalityLB   // of destinations that set none; nil: nearest first where there is outlier detection
	ServiceCIDR     netip.Prefix  // for services without an address, default 10.96.0.0/16
	// DiscoverySelectors choose namespaces on Kubernetes by label selectors, as kubectl writes them; one that matches is enough. None: all.
	DiscoverySelectors []string
	Ingress            IngressSettings
	EndpointSlices     bool // Kubernetes: endpoints of Services come from EndpointSlices; false: pods by selector
}

// IstioRootNamespace is honoured beside RootNamespace: policies of an Istio
// installation live there.
const IstioRootNamespace = "istio-system"

// IsRoot tells whether policies of a namespace hold for the whole mesh.
func (m *Mesh) IsRoot(namespace string) bool {
	return namespace == m.RootNamespace || namespace == IstioRootNamespace
}

// Namespace is a namespace with its labels.
type Namespace struct{ Meta }

// ServiceAccount is an identity that workloads may have.
type ServiceAccount struct{ Meta }

// Deployment is known so that references to it can be checked; running it is the local runtime's (or Kubernetes') work.
type Deployment struct {
	Meta
	PodLabels      map[string]string
	ServiceAccount string
	Ports          map[string]uint16 // named container ports
	Replicas       int32
}

// Protocol of a service port.
type Protocol string

const (
	ProtocolAuto    Protocol = "" // sniff
	ProtocolHTTP    Protocol = "HTTP"
	ProtocolHTTP2   Protocol = "HTTP2"
	ProtocolGRPC    Protocol = "GRPC"
	ProtocolGRPCWeb Protocol = "GRPC-Web"
	ProtocolHTTPS   Protocol = "HTTPS"
	ProtocolTLS     Protocol = "TLS"
	ProtocolTCP     Protocol = "TCP"
	ProtocolUDP     Protocol = "UDP"
)

// IsHTTP tells whether requests are routed at layer 7 in the clear.
func (p Protocol) IsHTTP() bool {
	return p == ProtocolHTTP || p == ProtocolHTTP2 || p == ProtocolGRPC || p == ProtocolGRPCWeb
}

// IsHTTP2 tells whether the application speaks HTTP/2.
func (p Protocol) IsHTTP2() bool {
	return p == ProtocolHTTP2 || p == ProtocolGRPC || p == ProtocolGRPCWeb
}

// IsTLS tells whether the application's own TLS passes through.
func (p Protocol) IsTLS() bool { return p == ProtocolHTTPS || p == ProtocolTLS }

// Resolution is how a service's endpoints are found.
type Resolution string

const (
	ResolveStatic        Resolution = "STATIC" // selector or listed endpoints
	ResolveNone          Resolution = "NONE"   // original destination
	ResolveDNS           Resolution = "DNS"    // every A record
	ResolveDNSRoundRobin Resolution = "DNS_ROUND_ROBIN"
)

// Service is a host with ports: a Kubernetes Service, or one host of a ServiceEntry.
type Service struct {
	Meta
	Host            string // reviews.default.svc.cluster.local
	Ports           []Port
	Addresses       []netip.Prefix // VIPs; empty: allocated by the World unless Headless or external without addresses
	Selector        map[string]string
	Headless        bool
	External        bool // MESH_EXTERNAL
	Resolution      Resolution
	ExportTo        []string   // "*", ".", "~" or namespaces; empty: "*"
	Endpoints       []Endpoint // of a ServiceEntry
	SubjectAltNames []string
	Entry           bool // made from a ServiceEntry
}

// Port of a service.
type Port struct {
	Number     uint16
	Name       string
	Protocol   Protocol
	TargetPort uint16 // 0: Number, or by TargetName
	TargetName string // named container port
}

// Endpoint is one address written into a ServiceEntry.
type Endpoint struct {
	Address        string            // IP or DNS name
	Ports          map[string]uint16 // by service port name
	Labels         map[string]string
	Weight         uint32
	ServiceAccount string
	Locality       string
	Network        string
}

// Workload is a pod or a WorkloadEntry.
type Workload struct {
	Meta
	Addresses      []netip.Addr
	Hostname       string // WorkloadEntry with a DNS name
	ServiceAccount string
	WorkloadName   string            // Deployment
	Ports          map[string]uint16 // named container ports; WorkloadEntry: by service port name
	ContainerPorts []uint16
	Ready          bool
	NodeLost       bool // not Ready only because nobody hears of its node: by its own last word it is
	Terminating    bool
	HasSidecar     bool // accepts mTLS (tlsMode istio)
	Weight         uint32
	Locality       string
	Node           string
	Gateway        bool
	Entry          bool // made from a WorkloadEntry
	Topology       Topology
}

// Topology is what stands in front of a gateway's pods (Istio's ProxyConfig.gatewayTopology, from their
// annotation proxy.istio.io/config).
type Topology struct {
	TrustedProxies    uint32 // that many entries of x-forwarded-for from the right are proxies of ours
	ForwardClientCert string // SANITIZE, FORWARD_ONLY, APPEND_FORWARD, SANITIZE_SET, ALWAYS_FORWARD_ONLY; "": SANITIZE_SET
	ProxyProtocol     bool   // connections begin with a PROXY header
}

// RouteSet is the routing of some hosts (a VirtualService).
type RouteSet struct {
	Meta
	Hosts    []string // full names, "*" or "*.suffix"
	Gateways []string // "mesh" or namespace/name; never empty
	ExportTo []string
	HTTP     []Route
	TLS      []L4Route
	TCP      []L4Route
	// Consumer sets are a client namespace's own word on a Service (GAMMA): they come before all others, whatever their age.
	Consumer bool
	// Frontend sets are of requests to the addresses of the Services that have the hosts, whatever host these requests name, and
	// of no others (GAMMA, GEP-1324). A Service without an address is routed by host.
	Frontend bool
}

// StringMatch compares a string. Exactly one field is set; none: presence.
type StringMatch struct{ Exact, Prefix, Regex *string }

// Route is an HTTP route.
type Route struct {
	Name     string
	Matches  []HTTPMatch // any; empty: all requests
	Forward  []Destination
	Redirect *Redirect
	Direct   *Direct
	Rewrite  *Rewrite
	Timeout  *time.Duration // nil: none
	Retries  *Retries       // nil: default policy
	Fault    *Fault
	Mirrors  []Mirror
	Headers  Headers
	CORS     *CORS // runs before everything else of the route, Redirect and Direct included
	Origin   *Key  // the object that the rule is written in, if it is not the RouteSet: "HTTPRoute default/web"
}

// IsGRPC tells whether the route is written in a GRPCRoute; false of nil.
func (r *Route) IsGRPC() bool { return r != nil && r.Origin != nil && r.Origin.Kind == KindGRPCRoute }

// HTTPMatch is conditions that must all hold.
type HTTPMatch struct {
	Name          string
	URI           *StringMatch
	IgnoreURICase bool
	// PathPrefix matches by path elements (Gateway API PathPrefix; Envoy path_separated_prefix): "/foo" takes "/foo", "/foo/"
	// and "/foo/bar", not "/foobar". Never "/" (that is no condition) and without a slash at its end. Not together with URI.
	PathPrefix      string
	Scheme          *StringMatch
	Method          *StringMatch
	Authority       *StringMatch
	Headers         map[string]StringMatch
	WithoutHeaders  map[string]StringMatch
	Query           map[string]StringMatch
	Port            uint16
	SourceLabels    map[string]string
	SourceNamespace string
	Gateways        []string
}

// Destination is a weighted target of a route.
type Destination struct {
	Host    string // full name
	Port    uint16 // 0: the only port, or the port of the request
	Subset  string
	Weight  uint32
	Headers Headers
	// Unresolved is a target that does not exist or may not be used: its share (Weight, as every other's) is answered 500.
	// Host and Port may be empty. A route whose every target is so has Direct 500 instead.
	Unresolved bool
}

// HeaderOps are changes to one direction's header fields. Set and Add are applied sorted by name.
type HeaderOps struct {
	Set, Add map[string]string
	Remove   []string
}

// Headers are changes to both directions.
type Headers struct{ Request, Response HeaderOps }

// Redirect answers with a Location.
type Redirect struct {
	URI, Authority, Scheme string
	Port                   uint32
	DerivePort             string // FROM_PROTOCOL_DEFAULT, FROM_REQUEST_PORT or ""
	Code                   uint32 // default 301
	PrefixRewrite          *string
	// ReplacePrefix replaces the match's PathPrefix (no condition: the leading "/") by path elements, see Rewrite. Query and the rest stay.
	ReplacePrefix *string
	// DropPort leaves the port out of Location, also the one that the request's Host has; Port is 0 then. Without it
	// and without Port and DerivePort, Location has the port of the Host.
	DropPort bool
}

// Direct answers with a body.
type Direct struct {
	Status uint32
	Body   []byte
}

// Rewrite changes path and host before forwarding.
type Rewrite struct {
	URI       *string
	Authority string
	Regex     *RegexRewrite
	// FullPath replaces the whole path (Gateway API ReplaceFullPath); the query stays. Begins with "/".
	FullPath *string
	// ReplacePrefix replaces the match's PathPrefix (ReplacePrefixMatch); without PathPrefix (and URI) it goes before the
	// path. It is without a slash at its end; "" is the root. The result always begins with one "/" and has no "//" at the seam: with
	// PathPrefix /foo, "/xyz" makes /foo/bar /xyz/bar, /foo /xyz, /foo/ /xyz/; "" makes /foo/bar /bar, and /foo and /foo/ /. The query stays.
	ReplacePrefix *string
}

// RegexRewrite replaces what matches in the path.
type RegexRewrite struct{ Match, Rewrite string }

// Retries is a retry policy.
type Retries struct {
	Attempts            int32 // 0: never
	PerTryTimeout       time.Duration
	RetryOn             string
	Backoff             time.Duration
	IgnorePreviousHosts *bool
}

// Fault injects delays and aborts. Percent is 0 to 100.
type Fault struct {
	Delay        time.Duration
	DelayPercent float64
	AbortStatus  int
	AbortGRPC    string // name of a gRPC status
	AbortPercent float64
}

// Mirror copies traffic.
type Mirror struct {
	Destination
	Percent float64 // 0 to 100
}

// L4Route is a TLS or TCP route.
type L4Route struct {
	Matches []L4Match
	Forward []Destination
}

// L4Match is conditions that must all hold.
type L4Match struct {
	SNIHosts           []string // TLS only
	DestinationSubnets []netip.Prefix
	Port               uint16
	SourceLabels       map[string]string
	SourceNamespace    string
	Gateways           []string
}

// DestinationRule is how clients talk to a host.
type DestinationRule struct {
	Meta
	Host     string // full name or wildcard
	Policy   TrafficPolicy
	Subsets  []Subset
	ExportTo []string
	Selector map[string]string // client workloads; empty: all
	// Backend rules are made from BackendTLSPolicies: their Policy.TLS (Policy.Ports[n].TLS for one port, which goes first)
	// is how gateways, not sidecars, open connections to the Service, in place of what other rules and automatic mTLS say. They
	// have nothing else and are no part of World.Rule, see World.BackendTLS. The client certificate is [Gateway].BackendCredential.
	Backend bool
}

// Subset is a named part of a service's endpoints.
type Subset struct {
	Name   string
	Labels map[string]string
	Policy TrafficPolicy
}

// TrafficPolicy is client-side behaviour. Nil blocks are inherited.
type TrafficPolicy struct {
	LB            *LoadBalancer
	Pool          *ConnectionPool
	Outlier       *OutlierDetection
	TLS           *ClientTLS
	Ports         map[uint16]TrafficPolicy // portLevelSettings; replaces the blocks of the destination level whole
	RetryBudget   *RetryBudget
	ProxyProtocol uint8 // 0 none, 1, 2
}

// LB policies.
const (
	LBLeastRequest = "LEAST_REQUEST"
	LBRoundRobin   = "ROUND_ROBIN"
	LBRandom       = "RANDOM"
	LBPassthrough  = "PASSTHROUGH"
	LBConsistent   = "CONSISTENT_HASH"
)

// LoadBalancer settings.
type LoadBalancer struct {
	Policy                             string // one of LB…
	Hash                               *ConsistentHash
	Warmup                             time.Duration
	WarmupMinPercent, WarmupAggression float64
	Locality                           *LocalityLB // nil: the mesh's
}

// LocalityLB says which endpoints a client prefers by where they are. Localities
// are region/zone/subzone; later parts may be missing or "*".
type LocalityLB struct {
	Disabled   bool
	Distribute []Distribute
	// Failover and FailoverPriority order endpoints by nearness, which has an effect with outlier detection only.
	Failover         []Failover
	FailoverPriority []string // labels, "key" or "key=value", the most important first
}

// Distribute spreads the traffic of clients in From over localities, by weights that sum to 100.
type Distribute struct {
	From string
	To   map[string]uint32
}

// Failover names the region that takes over for a region.
type Failover struct{ From, To string }

// ConsistentHash settings. Exactly one of Header, Cookie, SourceIP and Query is set.
type ConsistentHash struct {
	Header   string
	Cookie   *HashCookie
	SourceIP bool
	Query    string
	Maglev   bool
	MinRing  uint64 // default 1024
	Table    uint64 // maglev, default 65537
}

// HashCookie is a cookie used (and made) for affinity.
type HashCookie struct {
	Name, Path string
	TTL        *time.Duration
	Attributes [][2]string
}

// ConnectionPool limits; 0 means not set.
type ConnectionPool struct {
	MaxConnections                          uint32
	ConnectTimeout                          time.Duration
	Keepalive                               *Keepalive
	MaxConnDuration                         time.Duration
	TCPIdleTimeout                          time.Duration
	MaxPending                              uint32
	MaxRequests                             uint32
	MaxRequestsPerConn                      uint32
	MaxRetries                              uint32
	HTTPIdleTimeout                         time.Duration
	H2Upgrade                               string // DEFAULT, UPGRADE, DO_NOT_UPGRADE or ""
	UseClientProtocol                       bool
	MaxConcurrentStreams                    uint32
	H2KeepaliveInterval, H2KeepaliveTimeout time.Duration
}

// Keepalive is TCP keepalive.
type Keepalive struct {
	Probes         uint32
	Time, Interval time.Duration
}

// OutlierDetection settings; defaults are filled in by convert.
type OutlierDetection struct {
	Consecutive5xx, ConsecutiveGateway, ConsecutiveLocal uint32 // 0: off
	SplitLocal                                           bool
	Interval                                             time.Duration
	BaseEjection                                         time.Duration
	MaxEjectionPercent, MinHealthPercent                 uint32
	ErrorCodes                                           []uint32
}

// RetryBudget limits concurrent retries to a share of active requests.
type RetryBudget struct {
	Percent float64
	Min     uint32
}

// TLS modes of clients and servers.
const (
	TLSDisable     = "DISABLE"
	TLSSimple      = "SIMPLE"
	TLSMutual      = "MUTUAL"
	TLSIstioMutual = "ISTIO_MUTUAL"
	TLSPassthrough = "PASSTHROUGH"
	TLSOptional    = "OPTIONAL_MUTUAL" // servers only: who presents a certificate must present a good one
)

// ClientTLS is TLS origination.
type ClientTLS struct {
	Mode                      string
	CertFile, KeyFile, CAFile string
	SANs                      []string
	SNI                       string
	Insecure                  bool
	CABundle                  []byte // PEM roots, inline; in place of CAFile
	SystemRoots               bool   // the roots of the operating system
	// VerifyHost is the name that the certificate must have where SANs is empty (BackendTLSPolicy's hostname). SANs with "://" are URIs.
	VerifyHost string
	// Credential is the Secret ([OwnCredential]) with the client certificate (mode MUTUAL) and the roots, in place of files. Gateways
	// alone get Secrets; a sidecar makes no connection (503).
	Credential string
	// Refuse lets no connection be made (503): what to verify with cannot be had.
	Refuse bool
}

// Gateway is a set of servers on gateway workloads.
type Gateway struct {
	Meta
	Selector map[string]string
	Servers  []Server
	// OwnNamespace limits Selector to workloads of the gateway's namespace (Gateway API).
	OwnNamespace bool
	// WorkloadNamespace limits Selector to workloads of another namespace, that of the Service which was deployed by hand (Gateway API); "" does not.
	WorkloadNamespace string
	// BackendCredential is the Secret ([Credential]) whose certificate its workloads present to Services with a Backend rule; "" none.
	BackendCredential string
	// Origin is the object of the Gateway API that the gateway is made from; nil for Istio's.
	Origin *Key
}

// Server is one port of a gateway.
type Server struct {
	Name     string
	Port     uint16
	PortName string
	Protocol Protocol
	Bind     string
	Hosts    []GatewayHost
	TLS      *ServerTLS
	// Misdirected are hosts ("*", "*.suffix", names) that other servers of the port serve: a request for one that came in by this
	// server's TLS is answered 421. Hosts of this server's route sets go first where they are as specific or more.
	Misdirected []string
}

// GatewayHost is namespace/host; Namespace "*" is any, "." the gateway's own.
type GatewayHost struct{ Namespace, Host string }

// ServerTLS terminates or passes TLS at a gateway.
type ServerTLS struct {
	Mode                      string
	HTTPSRedirect             bool
	CertFile, KeyFile, CAFile string
	SANs                      []string
	MinVersion, MaxVersion    string   // "", TLSV1_2, TLSV1_3
	CipherSuites              []string // of TLS 1.2, OpenSSL's names
	Credentials               []string // Secrets ([Credential]) in place of CertFile and KeyFile; the certificate that fits the server name, else the first
	CABundle                  []byte   // PEM roots for client certificates, inline; in place of CAFile
	CACredential              string   // Secret whose ca.crt verifies clients ([Credential], [OwnCredential]); in place of CAFile
}

// mTLS modes of PeerAuthentication.
const (
	MTLSUnset      = "UNSET"
	MTLSDisable    = "DISABLE"
	MTLSPermissive = "PERMISSIVE"
	MTLSStrict     = "STRICT"
)

// PeerAuthentication says what a workload accepts.
type PeerAuthentication struct {
	Meta
	Selector map[string]string
	Mode     string
	Ports    map[uint16]string // by workload port
}

// Authorization actions.
const (
	AuthzAllow = "ALLOW"
	AuthzDeny  = "DENY"
)

// AuthorizationPolicy allows or denies requests and connections.
type AuthorizationPolicy struct {
	Meta
	Selector map[string]string
	Action   string
	Rules    []AuthzRule // none: never matches
}

// AuthzRule matches if one of From, one of To and all of When match. Empty parts match all.
type AuthzRule struct {
	From []AuthzSource
	To   []AuthzOperation
	When []AuthzCondition
}

// AuthzSource is who calls; all set fields must hold.
type AuthzSource struct {
	Principals, NotPrincipals           []string
	Namespaces, NotNamespaces           []string
	ServiceAccounts, NotServiceAccounts []string // "ns/sa" or "sa"
	IPBlocks, NotIPBlocks               []netip.Prefix
	RemoteIPBlocks, NotRemoteIPBlocks   []netip.Prefix
	TrustDomains, NotTrustDomains       []string
}

// AuthzOperation is what is called; all set fields must hold.
type AuthzOperation struct {
	Hosts, NotHosts     []string
	Ports, NotPorts     []uint16
	Methods, NotMethods []string
	Paths, NotPaths     []string
}

// AuthzCondition is a further condition (when).
type AuthzCondition struct {
	Key               string
	Values, NotValues []string
}
