package stream

import (
	"net/netip"
	"sync/atomic"
	"time"
	"unique"

	"weft.mesh/weft/spiffe"
)

// Direction tells which side of the workload a connection is on.
type Direction uint8

const (
	Outbound Direction = iota + 1 // from the local workload: reporter=source
	Inbound                       // to the local workload: reporter=destination
	Gateway                       // through a gateway: reporter=source
)

// ConnInfo is what is known of one connection. Set before the first exchange, then read-only.
type ConnInfo struct {
	ID        uint64
	Direction Direction
	Listener  string
	Local     netip.AddrPort // original destination where there is one
	Remote    netip.AddrPort // the client: as the PROXY header says, where there is one
	SNI       string
	ALPN      string
	TLS       bool
	// PeerUntrusted tells that the peer's certificate did not verify and was let in all the same: it proves nothing.
	PeerUntrusted bool
	// PeerID is the SPIFFE ID that the peer proved by its certificate; zero without mTLS.
	PeerID spiffe.ID
	// LocalID is the identity that we presented; zero without mTLS.
	LocalID spiffe.ID
	// Met is what the proxies at both ends have told each other of themselves on this connection; nil without mTLS.
	Met *Meeting
	// Direct is the socket's peer where Remote is not: the balancer that sent a PROXY header. Ask [ConnInfo.DirectRemote].
	Direct netip.AddrPort
}

// DirectRemote is the address of the socket's peer, whatever a PROXY header said
// (Envoy's direct remote address).
func (c *ConnInfo) DirectRemote() netip.AddrPort {
	if c.Direct.IsValid() {
		return c.Direct
	}
	return c.Remote
}

// MutualTLS tells whether the peer proved an identity.
func (c *ConnInfo) MutualTLS() bool { return !c.PeerID.IsZero() }

// Meeting remembers whom we met on a connection (metadata exchange). Safe for concurrent use: exchanges of HTTP/2 share it.
type Meeting struct{ known atomic.Pointer[Acquaintance] }

// Acquaintance is what one end knows of a meeting. Immutable.
type Acquaintance struct {
	Peer *Workload             // who the peer said it is
	Told unique.Handle[string] // as what we introduced ourselves in headers, if the peer remembers it; zero: it does not
}

// Known is nil as long as there is nothing to remember; on a nil Meeting too.
func (m *Meeting) Known() *Acquaintance {
	if m == nil {
		return nil
	}
	return m.known.Load()
}

// Remember keeps what the peer said of itself and what it has been told. On a nil Meeting it does nothing.
func (m *Meeting) Remember(peer *Workload, told unique.Handle[string]) {
	if m == nil {
		return
	}
	if a := m.known.Load(); a == nil || a.Peer != peer || a.Told != told {
		m.known.Store(&Acquaintance{peer, told})
	}
}

// Peer is the workload that the peer said it is; nil if it has not, or not for us to remember. On a nil Meeting too.
func (m *Meeting) Peer() *Workload {
	if a := m.Known(); a != nil {
		return a.Peer
	}
	return nil
}

// Workload describes one side of an exchange for metrics and logs. Immutable.
type Workload struct {
	Name              string // workload (Deployment) name
	Namespace         string
	App, Version      string // labels app, version
	CanonicalName     string
	CanonicalRevision string
	Cluster           string
	Principal         string // full SPIFFE ID if known
}

// Flags is a set of Envoy's response flags; short names in brackets.
type Flags uint32

const (
	FlagUpstreamConnectFailure Flags = 1 << iota // UF
	FlagUpstreamOverflow                         // UO
	FlagNoHealthyUpstream                        // UH
	FlagNoRoute                                  // NR
	FlagNoCluster                                // NC
	FlagUpstreamRetryLimit                       // URX
	FlagUpstreamTimeout                          // UT
	FlagUpstreamReset                            // UR: upstream remote reset
	FlagUpstreamTermination                      // UC: upstream connection termination
	FlagLocalReset                               // LR
	FlagDownstreamTermination                    // DC
	FlagDownstreamProtocolErr                    // DPE
	FlagUpstreamProtocolErr                      // UPE
	FlagDelayInjected                            // DI
	FlagFaultInjected                            // FI
	FlagRateLimited                              // RL
	FlagUnauthorized                             // UAEX
	FlagStreamIdleTimeout                        // SI
	FlagDurationTimeout                          // DT
	FlagOverload                                 // OM
)

var flagNames = [...]string{"UF", "UO", "UH", "NR", "NC", "URX", "UT", "UR", "UC", "LR", "DC", "DPE", "UPE", "DI", "FI", "RL", "UAEX", "SI", "DT", "OM"}

// AppendTo appends the short names joined by commas, "-" if none (Envoy %RESPONSE_FLAGS%).
func (f Flags) AppendTo(b []byte) []byte {
	if f == 0 {
		return append(b, '-')
	}
	first := true
	for i, n := range flagNames {
		if f&(1<<i) != 0 {
			if !first {
				b = append(b, ',')
			}
			b, first = append(b, n...), false
		}
	}
	return b
}

// String is the form of metrics and logs.
func (f Flags) String() string { return string(f.AppendTo(nil)) }

// Info is all that access logs, metrics and traces need of one exchange or one
// TCP connection. The owner of the exchange fills it; it is complete, and read
// by telemetry, when the exchange has ended. Strings and slices in it may
// alias the messages.
type Info struct {
	Conn      *ConnInfo
	Start     time.Time
	Duration  time.Duration
	Req       *Request  // nil for TCP
	Resp      *Response // nil if none was sent
	Status    int       // sent downstream; 0 if none
	GRPC      bool
	GRPCCode  int    // -1 if unknown
	OrigPath  []byte // before any rewrite
	RouteName string
	Cluster   string // chosen upstream cluster
	// Host is the destination service's host name (cluster metadata), for destination_service*.
	Service     Service
	Upstream    netip.AddrPort
	UpLocal     netip.AddrPort
	UpstreamID  spiffe.ID
	UpFailure   string // transport failure reason
	Details     string // response code details
	Termination string // connection termination details
	Flags       Flags
	BytesIn     uint64 // request body, or downstream to upstream for TCP
	BytesOut    uint64
	ReqMsgs     uint64 // gRPC messages
	RespMsgs    uint64
	Attempts    int
	ServiceTime time.Duration // of the upstream, -1 if none
	RequestID   []byte
	// Client is the caller's address after the x-forwarded-for rules; invalid: Conn.Remote.
	Client netip.AddrPort
	// Peer is the other workload: the caller on inbound, the chosen endpoint's workload on outbound. Nil if unknown.
	Peer *Workload
	// Tunnel or upgrade protocol.
	Upgrade bool
	// Report, for TCP, tells which report of the connection this is; access logs are written at the end only.
	Report Report
	// NewIn and NewOut are the bytes since the last report (TCP).
	NewIn, NewOut uint64
}

// Report is the stage at which a TCP connection is reported to metrics. HTTP exchanges are reported once, at the end.
type Report uint8

const (
	ReportEnd     Report = iota // ended; the zero value
	ReportOpen                  // established, or failed to be
	ReportRunning               // in between, every 15 s if bytes moved
)

// Service names the destination service of a cluster.
type Service struct{ Host, Name, Namespace string }
