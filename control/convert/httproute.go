package convert

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

func (c *conv) headers(path string, h *networking.Headers) model.Headers {
	if h == nil {
		return model.Headers{}
	}
	return model.Headers{Request: c.headerOps(path+".request", h.Request), Response: c.headerOps(path+".response", h.Response)}
}

// setHost takes the host out of the headers that a route (or its only
// destination) sets: it is no header, but the request's authority. "" if it is not set.
func (c *conv) setHost(path string, h *networking.Headers) (host string, rest *networking.Headers) {
	set := h.GetRequest().GetSet()
	var names []string
	for _, k := range sortedKeys(set) {
		if k == ":authority" || strings.EqualFold(k, "host") {
			names = append(names, k)
		}
	}
	if len(names) == 0 {
		return "", h
	}
	path += ".request.set[" + names[0] + "]"
	if len(names) > 1 {
		c.fail(CodeExclusive, path, names[0], "the host is set twice", "keep one of "+quoteList(names))
	}
	host = set[names[0]]
	if !isHostPort(host) {
		c.fail(CodeInvalidHost, path, host, "this is not a host", "write host or host:port")
	}
	rest = proto.Clone(h).(*networking.Headers)
	for _, k := range names {
		delete(rest.Request.Set, k)
	}
	return host, rest
}

func (c *conv) headerOps(path string, o *networking.Headers_HeaderOperations) model.HeaderOps {
	if o == nil {
		return model.HeaderOps{}
	}
	for _, part := range []struct {
		name string
		m    map[string]string
	}{{"set", o.Set}, {"add", o.Add}} {
		for _, k := range sortedKeys(part.m) {
			p := path + "." + part.name + "[" + k + "]"
			c.changedHeader(p, k)
			c.headerValue(p, part.m[k])
		}
	}
	for i, k := range o.Remove {
		c.changedHeader(idx(path+".remove", i), k)
	}
	return model.HeaderOps{Set: o.Set, Add: o.Add, Remove: o.Remove}
}

func (c *conv) changedHeader(path, name string) {
	switch {
	case strings.HasPrefix(name, ":") || strings.EqualFold(name, "host"):
		c.fail(CodeUnsupportedField, path, name, "the header cannot be changed here", "set the host with headers.request.set of a route or its only destination, or with rewrite.authority; the path with rewrite.uri")
	case !isHeaderName(name):
		c.fail(CodeInvalidName, path, name, "this is not a header name", "use letters, digits and '-'")
	}
}

func (c *conv) headerValue(path, v string) {
	if i := strings.IndexFunc(v, func(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }); i >= 0 {
		c.fail(CodeInvalidValue, path, strconv.Quote(v), "a header value has no control characters", "remove the line break")
	}
	c.headerFormat(path, v)
}

// headerOperators are the %…% commands without an argument that the proxy and Envoy both have in header values.
var headerOperators = []string{
	"DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT",
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
	"DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_LOCAL_URI_SAN",
	"UPSTREAM_HOST", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_CLUSTER",
	"ROUTE_NAME", "REQUESTED_SERVER_NAME", "PROTOCOL", "RESPONSE_FLAGS", "RESPONSE_CODE_DETAILS", "RESPONSE_CODE", "START_TIME",
}

// headerFormat checks the %…% commands of a header value.
func (c *conv) headerFormat(path, v string) {
	for rest := v; ; {
		_, after, ok := strings.Cut(rest, "%")
		if !ok {
			return
		}
		cmd, tail, closed := strings.Cut(after, "%")
		if !closed {
			c.fail(CodeInvalidValue, path, v, "a % begins a format command that does not end", "write %% for a percent sign")
			return
		}
		rest = tail
		arg, isReq := strings.CutPrefix(cmd, "REQ(")
		if !isReq {
			arg, isReq = strings.CutPrefix(cmd, "RESP(")
		}
		if cmd == "" || slices.Contains(headerOperators, cmd) || isReq && len(arg) > 1 && strings.HasSuffix(arg, ")") {
			continue
		}
		c.fail(CodeUnsupportedField, path, "%"+cmd+"%", "the format command is not supported", "use %REQ(header)%, %RESP(header)% or one of "+quoteList(headerOperators)+"; write %% for a percent sign")
	}
}

// redirectCodes are what a redirect may answer with (Istio takes these).
var redirectCodes = []uint32{301, 302, 303, 307, 308}

func (c *conv) redirect(path string, r *networking.HTTPRedirect) *model.Redirect {
	if r == nil {
		return nil
	}
	out := &model.Redirect{URI: r.Uri, Authority: r.Authority, Scheme: r.Scheme, Code: r.RedirectCode}
	if out.Code == 0 {
		out.Code = 301
	}
	if !slices.Contains(redirectCodes, out.Code) {
		c.fail(CodeInvalidValue, path+".redirectCode", fmt.Sprint(r.RedirectCode), "this is not a redirect", "use 301, 302, 303, 307 or 308")
	}
	switch p := r.RedirectPort.(type) {
	case *networking.HTTPRedirect_Port:
		out.Port = uint32(c.port(path+".port", p.Port))
	case *networking.HTTPRedirect_DerivePort:
		out.DerivePort = p.DerivePort.String()
	}
	if r.Scheme != "" {
		c.oneOf(path+".scheme", r.Scheme, "http", "https")
	}
	if r.PrefixRewrite != "" {
		if r.Uri != "" {
			c.fail(CodeExclusive, path+".prefixRewrite", r.PrefixRewrite, "uri and prefixRewrite exclude each other", "keep one of them")
		}
		p := r.PrefixRewrite
		out.PrefixRewrite = &p
	}
	if r.Uri == "" && r.Authority == "" && r.Scheme == "" && r.RedirectPort == nil && r.PrefixRewrite == "" {
		c.fail(CodeMissingField, path, "", "the redirect changes nothing and would go round in circles", "set uri, authority, scheme or port")
	}
	return out
}

func (c *conv) direct(path string, d *networking.HTTPDirectResponse) *model.Direct {
	if d == nil {
		return nil
	}
	if d.Status < 200 || d.Status > 599 {
		c.fail(CodeInvalidValue, path+".status", fmt.Sprint(d.Status), "the status is not from 200 to 599", "use an HTTP status")
	}
	out := &model.Direct{Status: d.Status}
	switch b := d.GetBody().GetSpecifier().(type) {
	case *networking.HTTPBody_String_:
		out.Body = []byte(b.String_)
	case *networking.HTTPBody_Bytes:
		out.Body = b.Bytes
	}
	const maxBody = 1 << 20 // Istio's limit; Envoy takes 4 KiB unless it is told otherwise
	if len(out.Body) > maxBody {
		c.fail(CodeTooLarge, path+".body", fmt.Sprintf("%d bytes", len(out.Body)), "the body is too large", "at most 1 MiB")
	}
	return out
}

// isHostPort tells whether a text can be a request's authority.
func isHostPort(s string) bool {
	_, err := url.Parse("http://" + s + "/")
	return err == nil && s != "" && !strings.ContainsAny(s, "/ \t?#@%")
}

func (c *conv) rewrite(path string, r *networking.HTTPRewrite) *model.Rewrite {
	if r == nil {
		return nil
	}
	out := &model.Rewrite{Authority: r.Authority}
	if r.Uri != "" {
		u := r.Uri
		out.URI = &u
	}
	if r.Authority != "" {
		if !isHostPort(r.Authority) {
			c.fail(CodeInvalidHost, path+".authority", r.Authority, "this is not a host", "write host or host:port")
		}
	}
	if x := r.UriRegexRewrite; x != nil {
		if r.Uri != "" {
			c.fail(CodeExclusive, path+".uriRegexRewrite", x.Match, "uri and uriRegexRewrite exclude each other", "keep one of them")
		}
		if x.Match == "" || x.Rewrite == "" {
			c.fail(CodeMissingField, path+".uriRegexRewrite", "", "match and rewrite must both be set", "add the one that is missing")
		}
		c.regex(path+".uriRegexRewrite.match", x.Match)
		out.Regex = &model.RegexRewrite{Match: x.Match, Rewrite: x.Rewrite}
	}
	if r.Uri == "" && r.Authority == "" && r.UriRegexRewrite == nil {
		c.fail(CodeMissingField, path, "", "the rewrite changes nothing", "set uri, uriRegexRewrite or authority")
	}
	return out
}

// retryConditions are what retryOn may list, beside status codes (Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on).
var retryConditions = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes",
	"envoy-ratelimited", "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

// unsupportedRetries are conditions of features that do not exist here.
var unsupportedRetries = []string{"envoy-ratelimited", "http3-post-connect-failure", "retriable-headers"}

func (c *conv) retries(path string, r *networking.HTTPRetry) *model.Retries {
	if r == nil {
		return nil
	}
	out := &model.Retries{Attempts: r.Attempts, RetryOn: r.RetryOn, PerTryTimeout: c.durationOrZero(path+".perTryTimeout", r.PerTryTimeout),
		Backoff: c.durationOrZero(path+".backoff", r.Backoff)}
	c.count(path+".attempts", r.Attempts)
	if r.Attempts == 0 && (r.PerTryTimeout != nil || r.RetryOn != "" || r.Backoff != nil || r.RetryIgnorePreviousHosts != nil) {
		c.fail(CodeInvalidValue, path+".attempts", "0", "retries are switched off (attempts: 0), yet other fields are set", "set attempts, or remove the other fields")
	}
	if r.RetryIgnorePreviousHosts != nil {
		b := r.RetryIgnorePreviousHosts.Value
		out.IgnorePreviousHosts = &b
	}
	if r.RetryOn == "" {
		return out
	}
	for cond := range strings.SplitSeq(r.RetryOn, ",") {
		cond = strings.TrimSpace(cond)
		if slices.Contains(unsupportedRetries, cond) {
			c.fail(CodeUnsupportedField, path+".retryOn", cond, "the condition is not implemented", "use "+quoteList(retryConditions[:8]))
			continue
		}
		if n, err := strconv.Atoi(cond); err == nil && n >= 100 && n <= 599 || slices.Contains(retryConditions, cond) {
			continue
		}
		c.fail(CodeInvalidValue, path+".retryOn", cond, fmt.Sprintf("%q is not a retry condition", cond), enumHint(cond, retryConditions))
	}
	return out
}

// grpcStatuses are the names of gRPC's status codes; Istio refuses numbers.
var grpcStatuses = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func (c *conv) fault(path string, f *networking.HTTPFaultInjection) *model.Fault {
	if f == nil {
		return nil
	}
	if f.Delay == nil && f.Abort == nil {
		c.fail(CodeMissingField, path, "", "the fault does nothing", "add delay or abort")
	}
	out := &model.Fault{}
	if d := f.Delay; d != nil {
		fixed := d.GetFixedDelay()
		if fixed == nil {
			c.missing(path+".delay.fixedDelay", "write a duration like 7s")
		}
		out.Delay = c.duration(path+".delay.fixedDelay", fixed)
		out.DelayPercent = c.percent(path+".delay.percentage", d.Percentage)
	}
	if a := f.Abort; a != nil {
		c.abort(path+".abort", a, out)
	}
	return out
}

func (c *conv) abort(path string, a *networking.HTTPFaultInjection_Abort, out *model.Fault) {
	out.AbortPercent = c.percent(path+".percentage", a.Percentage)
	switch t := a.ErrorType.(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		if t.HttpStatus < 200 || t.HttpStatus > 599 {
			c.fail(CodeInvalidValue, path+".httpStatus", strconv.Itoa(int(t.HttpStatus)), "the status is not from 200 to 599", "use an HTTP status like 503")
		}
		out.AbortStatus = int(t.HttpStatus)
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		if !slices.Contains(grpcStatuses, t.GrpcStatus) {
			hint := enumHint(t.GrpcStatus, grpcStatuses)
			if n, err := strconv.Atoi(t.GrpcStatus); err == nil && n >= 0 && n < len(grpcStatuses) {
				hint = "use the name: " + grpcStatuses[n]
			}
			c.fail(CodeInvalidValue, path+".grpcStatus", t.GrpcStatus, "this is not the name of a gRPC status", hint)
		}
		out.AbortGRPC = t.GrpcStatus
	default:
		c.missing(path+".httpStatus", "add httpStatus or grpcStatus")
	}
}

func (c *conv) mirrors(path string, h *networking.HTTPRoute) []model.Mirror {
	if h.Mirror != nil && len(h.Mirrors) > 0 {
		c.fail(CodeExclusive, path+".mirrors", "", "mirror and mirrors exclude each other", "keep one of them")
	}
	if h.MirrorPercentage != nil && h.Mirror == nil {
		c.fail(CodeMissingField, path+".mirrorPercentage", "", "mirrorPercentage has no effect without mirror", "add mirror, or use percentage inside mirrors")
	}
	var out []model.Mirror
	if h.Mirror != nil {
		out = append(out, model.Mirror{Destination: c.destination(path+".mirror", h.Mirror), Percent: c.percent(path+".mirrorPercentage", h.MirrorPercentage)})
	}
	for i, m := range h.Mirrors {
		p := idx(path+".mirrors", i)
		out = append(out, model.Mirror{Destination: c.destination(p+".destination", m.Destination), Percent: c.percent(p+".percentage", m.Percentage)})
	}
	return out
}
