// Package config holds the proxy's configuration as plain immutable values.
// compile makes a [View] from xDS resources; everything else only reads it.
// A View is built whole, checked whole and published with one atomic store;
// readers load it once for each connection or request and keep that one.
package config

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
)

// View is one compiled configuration. Nothing in it changes after Publish.
// Parts that did not change since the previous View are the same pointers.
type View struct {
	Version   uint64
	Listeners map[string]*Listener
	Routes    map[string]*route.Table
	Clusters  map[string]*Cluster
	Secrets   map[string]*Secret
}

// Live is the published View.
type Live struct{ cur atomic.Pointer[View] }

// Publish makes v the current View.
func (l *Live) Publish(v *View) { l.cur.Store(v) }

// View is the current View; never nil after the first Publish.
func (l *Live) View() *View { return l.cur.Load() }

// Listener is a socket to accept on, or (BindToPort false) only a target that
// an original-destination listener hands connections to.
type Listener struct {
	Name           string
	Address        netip.AddrPort
	Direction      stream.Direction
	BindToPort     bool
	UseOriginalDst bool // look for a listener at the connection's original destination (exact IP:port, then 0.0.0.0:port), else use own chains
	OriginalDst    bool // recover the original destination (SO_ORIGINAL_DST) without handing over (inbound)
	Inspect        Inspect
	Chains         []*FilterChain
	Default        *FilterChain // when no chain matches; nil: close
	AccessLogs     []*AccessLog // for connections that match no chain
	MaxConnections uint32       // 0: no bound of its own
}

// Inspect says what is sniffed before a filter chain is chosen.
type Inspect struct {
	TLS           bool
	HTTP          bool
	ProxyProtocol bool // a PROXY header comes first
	// ProxyOptional also serves connections that begin with no header of an allowed
	// version (allow_requests_without_proxy_protocol).
	ProxyOptional bool
	// ProxyNoV1 and ProxyNoV2 are disallowed_versions.
	ProxyNoV1, ProxyNoV2 bool
	// NoSniff lists destination ports on which nothing is sniffed (server-first protocols).
	NoTLS, NoHTTP     []PortRange
	Timeout           time.Duration // 0: wait without bound
	ContinueOnTimeout bool
}

// PortRange is [Start, End).
type PortRange struct{ Start, End uint16 }

// FilterChain is how connections that match are served. Exactly one of HTTP and TCP is set.
type FilterChain struct {
	Name             string
	Match            ChainMatch
	TLS              *DownstreamTLS // nil: plaintext
	Network          []filter.Network
	HTTP             *HTTPManager
	TCP              *TCPProxy
	HandshakeTimeout time.Duration // default 15 s
	// Origin is what this chain was made of with the secrets of now; nil if it names
	// none. Chains of one origin differ by their secrets only: connections need not end for that.
	Origin *FilterChain
}

// ChainMatch chooses a chain by Envoy's order: destination port, destination
// IP, server name, transport protocol, application protocols, source. Empty: any.
type ChainMatch struct {
	DestinationPort uint16
	Prefixes        []netip.Prefix
	ServerNames     []string // exact or "*.suffix"
	Transport       string   // "tls", "raw_buffer" or ""
	ALPN            []string // offered by the client, or found by the HTTP inspector: "http/1.1", "h2c"
	SourcePrefixes  []netip.Prefix
	SourcePorts     []uint16
}

// DownstreamTLS terminates TLS. With Workload the certificate is the proxy's own
// SVID and clients are verified against its trust bundle (SDS "default" and "ROOTCA").
type DownstreamTLS struct {
	Workload               bool
	Secret                 string // name in View.Secrets otherwise
	Certificates           []tls.Certificate
	ClientCAs              *x509.CertPool // nil with RequireClient and Workload: the trust bundle
	RequireClient          bool           // without it but with ClientCAs: who presents a certificate must present a good one
	ALPN                   []string
	MinVersion, MaxVersion uint16
	CipherSuites           []uint16 // of TLS 1.2; empty: Go's secure ones. TLS 1.3's cannot be chosen
	// SANs restricts the names of client certificates; empty: any that the roots sign.
	SANs []SANMatch
	// AcceptUntrusted takes clients whose certificate does not verify too; who they are is then not known (trust_chain_verification: ACCEPT_UNTRUSTED).
	AcceptUntrusted bool
}

// UpstreamTLS originates TLS.
type UpstreamTLS struct {
	Workload               bool // present our SVID, verify the peer as SVID
	SNI                    string
	ALPN                   []string
	SANs                   []SANMatch     // one must match; empty: not checked (Workload: any SVID of the bundle)
	RootCAs                *x509.CertPool // nil and not Workload: system roots
	Certificates           []tls.Certificate
	Insecure               bool
	MinVersion, MaxVersion uint16
	CipherSuites           []uint16 // as in DownstreamTLS
	AutoSNI                bool     // SNI from the request's authority
}

// SANMatch is a condition on a subject alternative name.
type SANMatch struct {
	Kind  SANKind
	Match route.StringMatch
}

// SANKind is the type of name.
type SANKind uint8

const (
	SANURI SANKind = iota + 1
	SANDNS
	SANAny
)

// Secret is a TLS certificate or a set of roots delivered over SDS or from a file.
type Secret struct {
	Name        string
	Certificate *tls.Certificate
	Roots       *x509.CertPool
}

// Codec of a downstream HTTP connection.
type Codec uint8

const (
	CodecAuto Codec = iota // by ALPN, else by the HTTP/2 preface
	CodecHTTP1
	CodecHTTP2
)

// ForwardClientCert is the treatment of x-forwarded-client-cert.
type ForwardClientCert uint8

const (
	XFCCSanitize ForwardClientCert = iota
	XFCCForwardOnly
	XFCCAppendForward
	XFCCSanitizeSet
	XFCCAlwaysForwardOnly
)

// EscapedSlashes is what happens to %2F and %5C in a path.
type EscapedSlashes uint8

const (
	SlashesKeep EscapedSlashes = iota
	SlashesReject
	SlashesUnescapeRedirect
	SlashesUnescapeForward
)

// HTTPManager is a compiled HTTP connection manager.
type HTTPManager struct {
	StatPrefix string
	Codec      Codec
	RouteName  string       // in View.Routes; used if Routes is nil
	Routes     *route.Table // inline
	Filters    []filter.HTTP
	AccessLogs []*AccessLog
	// Limits; compile fills in Envoy's and Istio's defaults.
	IdleTimeout           time.Duration // connection without streams, default 1 h
	StreamIdleTimeout     time.Duration // 0: none
	RequestTimeout        time.Duration // whole request received, 0: none
	RequestHeadersTimeout time.Duration
	DrainTimeout          time.Duration
	MaxConnectionDuration time.Duration
	MaxStreamDuration     time.Duration
	MaxHeaderBytes        int // default 60 KiB
	MaxHeaders            int // default 100
	MaxConcurrentStreams  uint32
	InitialStreamWindow   uint32
	InitialConnWindow     uint32
	MaxRequestsPerConn    uint32
	ServerName            string // value of the server header; "" with ServerPass: leave
	ServerPass            bool   // PASS_THROUGH
	ServerAppend          bool   // APPEND_IF_ABSENT
	UseRemoteAddress      bool   // edge: set x-forwarded-for, sanitise
	XFFTrustedHops        uint32
	SkipXFFAppend         bool
	ForwardClientCert     ForwardClientCert
	SetClientCert         ClientCertDetails
	GenerateRequestID     bool
	PreserveRequestID     bool
	AlwaysSetRequestID    bool // in the response
	Normalize             bool
	MergeSlashes          bool
	EscapedSlashes        EscapedSlashes
	AllowHTTP10           bool
	StripHostPort         bool
	PreserveCase          bool
	Upgrades              []string // "websocket"
	Tracing               *Tracing
	Via                   string
	ProxyStatus           bool
	AllowConnect          bool
}

// ClientCertDetails is what goes into x-forwarded-client-cert.
type ClientCertDetails struct{ Subject, Cert, Chain, DNS, URI bool }

// Tracing is the sampling and propagation of trace context. Spans are reported by Reporter, if any.
type Tracing struct {
	RandomSampling                  float64 // percent
	ClientSampling, OverallSampling float64
	Outbound                        bool // operation name egress
}

// AccessLog is one access log sink, already formatted. Log is called once for each finished exchange or connection.
type AccessLog struct {
	Name string
	Log  func(i *stream.Info)
}

// TCPProxy forwards bytes to a cluster.
type TCPProxy struct {
	StatPrefix         string
	Cluster            string
	Weighted           []route.WeightedCluster
	Total              uint32
	IdleTimeout        time.Duration // default 1 h; 0: none
	MaxDuration        time.Duration
	MaxConnectAttempts uint32 // default 1
	Hash               bool   // by source IP
	AccessLogs         []*AccessLog
	// Ends are told of each report of a connection (Istio's TCP metrics): when it
	// is open, every 15 s while bytes move, and at its end; see stream.Info.Report.
	Ends []func(i *stream.Info)
	// Peer metadata exchange (ALPN istio-peer-exchange) on this side.
	MetadataExchange bool
}

// Discovery is how a cluster learns its endpoints.
type Discovery uint8

const (
	Static Discovery = iota
	EDS
	StrictDNS
	LogicalDNS
	OriginalDst
)

// Protocol of upstream HTTP connections.
type Protocol uint8

const (
	ProtoHTTP1 Protocol = iota
	ProtoHTTP2
	ProtoDownstream // as the client's
	ProtoALPN       // what TLS negotiates
)

// LBPolicy picks endpoints.
type LBPolicy uint8

const (
	LeastRequest LBPolicy = iota
	RoundRobin
	Random
	RingHash
	Maglev
	ClusterProvided // original destination
)

// Cluster is an upstream as configured. Pools, health and counters live in
// proxy/upstream, keyed by Name.
type Cluster struct {
	Name                                string
	Discovery                           Discovery
	Endpoints                           []*Endpoint // nil until EDS answered
	Warm                                bool        // endpoints are known (also if there are none)
	LB                                  LB
	ConnectTimeout                      time.Duration // default 10 s
	IdleTimeout                         time.Duration // pooled connections, default 1 h
	Protocol                            Protocol
	MaxRequestsPerConn                  uint32
	MaxConcurrentStreams                uint32
	KeepaliveInterval, KeepaliveTimeout time.Duration // HTTP/2 ping
	TCPKeepalive                        *TCPKeepalive
	MaxConnDuration                     time.Duration
	Breakers                            Breakers
	Outlier                             *Outlier
	TLS                                 *UpstreamTLS     // when no match applies; nil: plaintext
	TLSMatches                          []TransportMatch // first whose labels the endpoint has (transport_socket_matches)
	BindSource                          netip.Addr       // 127.0.0.6 for inbound
	PassThroughOriginal                 bool             // use the connection's original destination
	Service                             stream.Service
	DNSHost                             string
	DNSPort                             uint16
	DNSRefresh                          time.Duration
	// Overprovisioning, PanicThreshold as Envoy: percent, 0: off.
	PanicThreshold   uint32
	MetadataExchange bool // upstream ALPN istio-peer-exchange
	AutoSNI          bool // SNI from the request's authority (upstream_http_protocol_options.auto_sni); also set on its TLS settings
	// InitialStreamWindow and InitialConnWindow of HTTP/2 in bytes; 0: the codec's defaults.
	InitialStreamWindow, InitialConnWindow uint32
	ProxyProtocol                          uint8 // version of the PROXY header to send first, when no match applies; 0: none
}

// LB is a load-balancing policy and its settings.
type LB struct {
	Policy                                   LBPolicy
	Choices                                  uint32 // least request: default 2
	MinRing                                  uint64 // default 1024
	MaxRing                                  uint64 // default 8M
	MaglevTable                              uint64 // default 65537
	UseHostname                              bool
	SlowStart                                time.Duration
	SlowStartMinPercent, SlowStartAggression float64
	LocalityWeighted                         bool // localities share requests by their weights (common_lb_config.locality_weighted_lb_config)
}

// TransportMatch chooses TLS settings by endpoint metadata (envoy.transport_socket_match).
type TransportMatch struct {
	Name          string
	Match         map[string]string
	TLS           *UpstreamTLS // nil: plaintext
	ProxyProtocol uint8        // version of the PROXY header to send first; 0: none
}

// TCPKeepalive as SO_KEEPALIVE and its options.
type TCPKeepalive struct {
	Probes         uint32
	Time, Interval time.Duration
}

// Breakers are circuit breaker limits; 0 means none allowed only where the pointer-free default was replaced by compile: unlimited is math.MaxUint32.
type Breakers struct {
	MaxConnections, MaxPending, MaxRequests, MaxRetries uint32
	RetryBudgetPercent                                  float64 // >0: instead of MaxRetries
	RetryBudgetMin                                      uint32
}

// Outlier detection settings (Envoy's outlier_detection).
type Outlier struct {
	Consecutive5xx, ConsecutiveGateway, ConsecutiveLocal uint32 // 0: off
	SplitLocal                                           bool
	Interval, BaseEjection, MaxEjection                  time.Duration
	MaxEjectionPercent                                   uint32
	SuccessRate                                          bool
	MinHealthPercent                                     uint32
	ErrorCodes                                           []int
}

// Health of an endpoint as the control plane sees it.
type Health uint8

const (
	Healthy Health = iota
	Unhealthy
	Draining
)

// Endpoint is one upstream host.
type Endpoint struct {
	Addr     netip.AddrPort
	Hostname string
	Weight   uint32 // at least 1
	Health   Health
	Priority uint32
	Locality Locality
	// LocalityWeight is the weight of its locality at its priority; 0: it gets nothing where localities are weighted.
	LocalityWeight uint32
	// Transport is the metadata under envoy.transport_socket_match (tlsMode: istio).
	Transport map[string]string
	Workload  *stream.Workload // nil if unknown
	Identity  spiffe.ID
}

// Locality of an endpoint.
type Locality struct{ Region, Zone, SubZone string }
