// Package route holds compiled route tables: which virtual host and route a
// request takes, and what is to be done with it. Tables are immutable and
// matched without allocation. Building and validating is compile's work;
// rewriting and forwarding is hcm's.
package route

import (
	"net/netip"
	"regexp"
	"time"
)

// Table is a compiled RouteConfiguration.
type Table struct {
	Name         string
	VirtualHosts []*VirtualHost
	// IgnorePort: the port of the Host header does not take part in matching (ignore_port_in_host_matching).
	IgnorePort bool
	// ByAddress: a request for a host that no virtual host but "*" has belongs to the virtual host that has the address which its
	// connection was going to among its domains, if there is one (metadata weft.mesh route_by_address).
	ByAddress bool
	Headers   HeaderOps // route configuration level
	// Set by Build:
	index     hostIndex
	addresses map[netip.Addr]*VirtualHost // only with ByAddress
}

// VirtualHost is a set of routes for some domains.
type VirtualHost struct {
	Name                string
	Domains             []string // exact, "*.suffix", "prefix.*", "*"
	Routes              []*Route // in order, first match wins
	Headers             HeaderOps
	IncludeAttemptCount bool // x-envoy-attempt-count to the upstream
	PerFilter           map[string]any
}

// Route is one route: when, and what then. Exactly one of Forward, Redirect and Direct is set.
type Route struct {
	Name      string
	Match     Match
	Forward   *Forward
	Redirect  *Redirect
	Direct    *Direct
	Headers   HeaderOps
	PerFilter map[string]any // compiled typed_per_filter_config by filter name (route over virtual host)
	// HeaderOrder of ops is: weighted cluster, route, virtual host, table (Envoy: most specific first).
	VirtualHost *VirtualHost
	// Operation is the decorator's operation, for span names.
	Operation string
	// Service names the destination for metrics when the cluster does not.
	Metadata map[string]string
}

// PathKind says how Path.Value is compared with the request's path (without query).
type PathKind uint8

const (
	PathAny             PathKind = iota
	PathPrefix                   // prefix of bytes
	PathExact                    // whole path
	PathRegex                    // full match, RE2
	PathSeparatedPrefix          // prefix that ends at a '/' or at the end
	PathConnect                  // CONNECT requests
)

// Path is a path condition.
type Path struct {
	Kind       PathKind
	Value      string
	Regex      *regexp.Regexp
	IgnoreCase bool
}

// Match is all conditions of a route; all must hold.
type Match struct {
	Path     Path
	Headers  []HeaderMatch
	Query    []QueryMatch
	GRPC     bool
	Fraction *Fraction
}

// StringKind says how a string is compared.
type StringKind uint8

const (
	StringPresent StringKind = iota
	StringExact
	StringPrefix
	StringSuffix
	StringContains
	StringRegex // full match
)

// StringMatch compares one string.
type StringMatch struct {
	Kind       StringKind
	Value      string
	Regex      *regexp.Regexp
	IgnoreCase bool
}

// HeaderMatch is a condition on one header or pseudo-header (":method", ":authority", ":path", ":scheme").
// Repeated lines are compared one by one; one that fits suffices.
type HeaderMatch struct {
	Name                string // lower case
	Match               StringMatch
	Range               *Range
	Invert              bool
	TreatMissingAsEmpty bool
}

// Range is a half-open range of integers [Start, End).
type Range struct{ Start, End int64 }

// QueryMatch is a condition on one query parameter.
type QueryMatch struct {
	Name  string
	Match StringMatch
}

// Fraction is a share of requests: Numerator out of Denominator (100, 10,000 or 1,000,000).
type Fraction struct{ Numerator, Denominator uint32 }

// Forward sends the request to a cluster.
type Forward struct {
	Cluster  string            // used when Weighted is empty
	Weighted []WeightedCluster // chosen at random by weight
	Total    uint32            // sum of weights, set by Build
	// Timeout of the whole exchange including retries; 0: none.
	Timeout     time.Duration
	IdleTimeout time.Duration // of the stream; 0: hcm's
	// MaxStreamDuration bounds the stream from its first byte to its last; 0: hcm's (max_stream_duration).
	MaxStreamDuration time.Duration
	MaxGRPC           time.Duration // upper bound for grpc-timeout; 0 with UseGRPC: no bound
	UseGRPC           bool          // honour grpc-timeout
	Retry             *Retry
	Hash              []HashPolicy
	Mirrors           []Mirror
	HostRewrite       string
	PrefixRewrite     *string // replaces the matched prefix or path
	RegexRewrite      *RegexRewrite
	Upgrades          []string
	MetadataMatch     map[string]string
	// NotFound is the status for a cluster that does not exist (cluster_not_found_response_code); 0: 503.
	NotFound int
}

// WeightedCluster is one of several destinations.
type WeightedCluster struct {
	Cluster   string
	Weight    uint32
	Headers   HeaderOps
	PerFilter map[string]any
}

// RegexRewrite replaces what matches in the path (RE2, \1 style substitution).
type RegexRewrite struct {
	Regex        *regexp.Regexp
	Substitution string // in Go's ${1} form
}

// Mirror copies a share of requests to another cluster and ignores its answers.
type Mirror struct {
	Cluster       string
	Fraction      *Fraction // nil: all
	DisableShadow bool      // do not append -shadow to the host
}

// RetryOn is a set of retry conditions (Envoy's x-envoy-retry-on and -grpc-on).
type RetryOn uint32

const (
	Retry5xx RetryOn = 1 << iota
	RetryGatewayError
	RetryReset
	RetryResetBeforeRequest
	RetryConnectFailure
	RetryRetriable4xx
	RetryRefusedStream
	RetryRetriableStatusCodes
	RetryRetriableHeaders
	RetryHTTP3PostConnect
	RetryGRPCCancelled
	RetryGRPCDeadlineExceeded
	RetryGRPCInternal
	RetryGRPCResourceExhausted
	RetryGRPCUnavailable
	RetryEnvoyRateLimited
)

// Retry says when and how often a request is sent again.
type Retry struct {
	On            RetryOn
	Attempts      uint32 // retries after the first try
	PerTryTimeout time.Duration
	StatusCodes   []int
	BaseInterval  time.Duration // default 25 ms
	MaxInterval   time.Duration // default 10 × base
	// AvoidPrevious: do not pick a host that was tried (previous_hosts predicate).
	AvoidPrevious bool
	HostAttempts  uint32 // host_selection_retry_max_attempts
}

// HashKind says what a hash policy hashes.
type HashKind uint8

const (
	HashHeader HashKind = iota + 1
	HashCookie
	HashSourceIP
	HashQuery
)

// HashPolicy yields a hash for consistent-hash balancing.
type HashPolicy struct {
	Kind     HashKind
	Name     string // header, cookie or parameter
	TTL      time.Duration
	Generate bool // make the cookie if absent (TTL given)
	Path     string
	Attrs    [][2]string
	Terminal bool
}

// Redirect answers with a Location.
type Redirect struct {
	Status        int // default 301
	Scheme        string
	HTTPS         bool
	Host          string
	Port          uint32
	Path          string // replaces path and query
	PrefixRewrite *string
	RegexRewrite  *RegexRewrite
	StripQuery    bool
	// DropPort leaves the port out of the Location, also that of the request's host. Port is not looked at.
	DropPort bool
}

// Direct answers with a fixed body.
type Direct struct {
	Status int
	Body   []byte
}

// HeaderOps are changes to request and response fields of one level. Within a
// level removals come first, then Mutations in order; the most specific level
// (weighted cluster, then route, virtual host, table) is applied first, as
// Envoy does by default.
type HeaderOps struct {
	Request, Response Ops
}

// Ops are header changes of one direction.
type Ops struct {
	Mutations []Mutation
	Remove    []string // lower case
}

// AppendAction as in Envoy's HeaderValueOption.
type AppendAction uint8

const (
	AppendOrAdd AppendAction = iota
	AddIfAbsent
	OverwriteOrAdd
	OverwriteIfExists
)

// Mutation is one addition. Value may hold Envoy's %COMMAND% operators; Template is its compiled form, nil if it is plain.
type Mutation struct {
	Name      string
	Value     string
	Action    AppendAction
	KeepEmpty bool
	Template  *Template // of Value, set by Build; nil if Value is plain
}

// Empty tells whether there is nothing to do.
func (o *Ops) Empty() bool { return len(o.Mutations) == 0 && len(o.Remove) == 0 }

// Source is what of the connection takes part in matching.
type Source struct{ Addr netip.AddrPort }
