package translate

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

const (
	// DefaultRetryOn is what is retried if a route says nothing (Istio's default).
	DefaultRetryOn      = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
	defaultRetries      = 2
	hostSelectionTries  = 5
	retryPreviousHosts  = "envoy.retry_host_predicates.previous_hosts"
	retriableStatusCode = "retriable-status-codes"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// retryPolicy is nil if nothing is to be retried. hashed tells that the
// destination is chosen by consistent hash: a retry then goes where the hash
// says, also if it was tried.
func retryPolicy(r *model.Retries, hashed bool) *routev3.RetryPolicy {
	p := &routev3.RetryPolicy{RetryOn: DefaultRetryOn, NumRetries: u32(defaultRetries)}
	avoid := !hashed
	if r != nil {
		if r.Attempts <= 0 && r.PerTryTimeout > 0 { // one try, with a bound of its own
			return &routev3.RetryPolicy{NumRetries: u32(0), PerTryTimeout: duration(r.PerTryTimeout)}
		}
		if r.Attempts <= 0 {
			return nil
		}
		p.NumRetries = u32(uint32(r.Attempts))
		if r.RetryOn != "" {
			p.RetryOn, p.RetriableStatusCodes = parseRetryOn(r.RetryOn)
		}
		p.PerTryTimeout = optional(r.PerTryTimeout)
		if r.Backoff > 0 {
			p.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: duration(r.Backoff)}
		}
		if r.IgnorePreviousHosts != nil {
			avoid = *r.IgnorePreviousHosts && !hashed
		}
	}
	if avoid {
		p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       retryPreviousHosts,
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previoushostsv3.PreviousHostsPredicate{})},
		}}
		p.HostSelectionRetryMaxAttempts = hostSelectionTries
	}
	return p
}

// parseRetryOn separates conditions from status codes, which Istio allows in one list.
func parseRetryOn(s string) (on string, status []uint32) {
	var conditions []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if n, err := strconv.ParseUint(part, 10, 16); err == nil {
			status = append(status, uint32(n))
		} else if part != "" {
			conditions = append(conditions, part)
		}
	}
	if len(status) > 0 && !slices.Contains(conditions, retriableStatusCode) {
		conditions = append(conditions, retriableStatusCode)
	}
	return strings.Join(conditions, ","), status
}

// setTimeout bounds the exchange (nil: not at all) and lets grpc-timeout shorten it.
func setTimeout(a *routev3.RouteAction, t *time.Duration) {
	d := time.Duration(0)
	if t != nil {
		d = *t
	}
	a.Timeout = duration(d)
	// max_stream_duration is the newer way, but ends streams that Istio lets run.
	a.MaxGrpcTimeout = duration(d) //nolint:staticcheck // deprecated upstream, kept by Istio
}

// faultConfig is a route's fault injection.
func faultConfig(f *model.Fault) *faultv3.HTTPFault {
	out := &faultv3.HTTPFault{}
	if f.Delay > 0 {
		out.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: duration(f.Delay)}, Percentage: fraction(f.DelayPercent),
		}
	}
	switch {
	case f.AbortGRPC != "":
		out.Abort = &faultv3.FaultAbort{ErrorType: &faultv3.FaultAbort_GrpcStatus{GrpcStatus: grpcStatus(f.AbortGRPC)}, Percentage: fraction(f.AbortPercent)}
	case f.AbortStatus != 0:
		out.Abort = &faultv3.FaultAbort{ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(f.AbortStatus)}, Percentage: fraction(f.AbortPercent)}
	}
	return out
}

// grpcCodes are the names of gRPC's statuses in order of their numbers.
var grpcCodes = strings.Fields("OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED " +
	"RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED")

// grpcStatus reads a status by name; convert has refused others.
func grpcStatus(name string) uint32 {
	if i := slices.Index(grpcCodes, strings.ToUpper(name)); i >= 0 {
		return uint32(i)
	}
	return uint32(slices.Index(grpcCodes, "UNKNOWN"))
}

// redirect translates a redirect; port is the listener's.
func redirect(r *model.Redirect, m *model.HTTPMatch, port uint16) *routev3.RedirectAction {
	a := &routev3.RedirectAction{HostRedirect: r.Authority, ResponseCode: redirectCode(r.Code)}
	switch {
	case r.ReplacePrefix != nil:
		switch prefix, regex := replacePrefix(m, *r.ReplacePrefix); {
		case regex != nil:
			a.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: regex}
		case prefix != "":
			a.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: prefix}
		}
	case r.PrefixRewrite != nil:
		a.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: *r.PrefixRewrite}
	case r.URI != "":
		a.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.URI}
	}
	if r.Scheme != "" {
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.DropPort && r.Authority != "": // Envoy takes the authority as it is
	case r.DropPort && r.Scheme == "": // of the request's scheme, which is not known here
		if a.PortRedirect = 80; port == 443 {
			a.PortRedirect = 443
		}
	case r.DropPort, r.DerivePort == "FROM_PROTOCOL_DEFAULT":
		a.PortRedirect = 80
		if r.Scheme == "https" {
			a.PortRedirect = 443
		}
	case r.DerivePort == "FROM_REQUEST_PORT":
		a.PortRedirect = uint32(port)
	default:
		a.PortRedirect = r.Port
	}
	return a
}

// dropPort tells weft-proxy to leave the port out of the Location. Envoy cannot, and writes the scheme's default.
func dropPort(m *corev3.Metadata) {
	m.FilterMetadata[xds.MetadataWeft] = weftFlag(xds.MetadataDropPort).FilterMetadata[xds.MetadataWeft]
}

// weftFlag is metadata that says something to weft-proxy only.
func weftFlag(name string) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		xds.MetadataWeft: {Fields: map[string]*structpb.Value{name: structpb.NewBoolValue(true)}},
	}}
}

func redirectCode(code uint32) routev3.RedirectAction_RedirectResponseCode {
	switch code {
	case 302:
		return routev3.RedirectAction_FOUND
	case 303:
		return routev3.RedirectAction_SEE_OTHER
	case 307:
		return routev3.RedirectAction_TEMPORARY_REDIRECT
	case 308:
		return routev3.RedirectAction_PERMANENT_REDIRECT
	}
	return routev3.RedirectAction_MOVED_PERMANENTLY
}

func directResponse(d *model.Direct) *routev3.DirectResponseAction {
	a := &routev3.DirectResponseAction{Status: d.Status}
	if len(d.Body) > 0 {
		a.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: d.Body}}
	}
	return a
}

// headerChanges are header operations as Envoy takes them.
type headerChanges struct {
	reqAdd, respAdd       []*corev3.HeaderValueOption
	reqRemove, respRemove []string
	authority             string // a host header that is set is a rewrite of the authority
}

func headersOf(h model.Headers) headerChanges {
	var c headerChanges
	c.reqAdd, c.authority = headerOps(h.Request)
	c.respAdd, _ = headerOps(h.Response)
	c.reqRemove, c.respRemove = h.Request.Remove, h.Response.Remove
	return c
}

// plus appends the operations of a destination to those of its route.
func (c headerChanges) plus(d headerChanges) headerChanges {
	return headerChanges{
		slices.Concat(c.reqAdd, d.reqAdd), slices.Concat(c.respAdd, d.respAdd),
		slices.Concat(c.reqRemove, d.reqRemove), slices.Concat(c.respRemove, d.respRemove), cmp.Or(d.authority, c.authority),
	}
}

func headerOps(o model.HeaderOps) (add []*corev3.HeaderValueOption, authority string) {
	each := func(m map[string]string, action corev3.HeaderValueOption_HeaderAppendAction) {
		for _, name := range sorted(m) {
			if n := strings.ToLower(name); n == "host" || n == ":authority" {
				authority = m[name]
				continue
			}
			add = append(add, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: m[name]}, AppendAction: action})
		}
	}
	each(o.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	each(o.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	return add, authority
}

// hashPolicies say what a consistent-hash destination hashes.
func hashPolicies(h *model.ConsistentHash) *routev3.RouteAction_HashPolicy {
	switch {
	case h == nil:
		return nil
	case h.Header != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header},
		}}
	case h.Cookie != nil:
		c := &routev3.RouteAction_HashPolicy_Cookie{Name: h.Cookie.Name, Path: h.Cookie.Path}
		if h.Cookie.TTL != nil {
			c.Ttl = duration(*h.Cookie.TTL)
		}
		for _, a := range h.Cookie.Attributes {
			c.Attributes = append(c.Attributes, &routev3.RouteAction_HashPolicy_CookieAttribute{Name: a[0], Value: a[1]})
		}
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{Cookie: c}}
	case h.SourceIP:
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}}
	case h.Query != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query},
		}}
	}
	return nil
}
