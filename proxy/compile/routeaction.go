package compile

import (
	"fmt"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"weft.mesh/weft/proxy/route"
)

func (c *Compiler) forward(x *routev3.RouteAction, perRoute map[string]any) (*route.Forward, error) {
	f := &route.Forward{HostRewrite: x.GetHostRewriteLiteral()}
	switch code := x.GetClusterNotFoundResponseCode(); code {
	case routev3.RouteAction_SERVICE_UNAVAILABLE:
	case routev3.RouteAction_NOT_FOUND:
		f.NotFound = 404
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		f.NotFound = 500
	default:
		return nil, bad("cluster_not_found_response_code", code, "unknown")
	}
	if err := c.destinations(f, x, perRoute); err != nil {
		return nil, err
	}
	if err := forwardTimeouts(f, x); err != nil {
		return nil, err
	}
	var err error
	if f.Retry, err = retryPolicy("retry_policy", x.GetRetryPolicy()); err != nil {
		return nil, err
	}
	if p := x.GetPrefixRewrite(); p != "" {
		f.PrefixRewrite = &p
	}
	if f.RegexRewrite, err = regexRewrite("regex_rewrite", x.GetRegexRewrite()); err != nil {
		return nil, err
	}
	if f.PrefixRewrite != nil && f.RegexRewrite != nil {
		return nil, bad("regex_rewrite", "set", "not together with prefix_rewrite")
	}
	for i, h := range x.GetHashPolicy() {
		p, err := hashPolicy(h)
		if err != nil {
			return nil, index("hash_policy", i, err)
		}
		f.Hash = append(f.Hash, p)
	}
	for i, m := range x.GetRequestMirrorPolicies() {
		if m.GetTraceSampled() != nil && !m.GetTraceSampled().GetValue() {
			return nil, index("request_mirror_policies", i, bad("trace_sampled", false, "not supported"))
		}
		fr, err := fraction("runtime_fraction", m.GetRuntimeFraction())
		if err != nil {
			return nil, index("request_mirror_policies", i, err)
		}
		f.Mirrors = append(f.Mirrors, route.Mirror{Cluster: m.GetCluster(), Fraction: fr, DisableShadow: m.GetDisableShadowHostSuffixAppend()})
	}
	for i, u := range x.GetUpgradeConfigs() {
		if u.GetEnabled() != nil && !u.GetEnabled().GetValue() {
			return nil, index("upgrade_configs", i, bad("enabled", false, "a route cannot take an upgrade away; leave it out of the connection manager's list"))
		}
		t := strings.ToLower(u.GetUpgradeType())
		if err := upgradeType(t); err != nil {
			return nil, index("upgrade_configs", i, err)
		}
		f.Upgrades = append(f.Upgrades, t)
	}
	return f, nil
}

func (c *Compiler) destinations(f *route.Forward, x *routev3.RouteAction, perRoute map[string]any) error {
	switch s := x.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		f.Cluster = s.Cluster
		return nil
	case *routev3.RouteAction_WeightedClusters:
		var sum uint32
		for i, w := range s.WeightedClusters.GetClusters() {
			o := route.WeightedCluster{Cluster: w.GetName(), Weight: w.GetWeight().GetValue()}
			var err error
			if o.Headers, err = headerOps(w); err != nil {
				return at("weighted_clusters", index("clusters", i, err))
			}
			if o.PerFilter, err = c.perFilter(w.GetTypedPerFilterConfig()); err != nil {
				return at("weighted_clusters", index("clusters", i, err))
			}
			if len(o.PerFilter) > 0 {
				o.PerFilter = merged(perRoute, o.PerFilter)
			}
			f.Weighted = append(f.Weighted, o)
			sum += o.Weight
		}
		if t := s.WeightedClusters.GetTotalWeight(); t != nil && t.GetValue() != sum {
			return bad("weighted_clusters.total_weight", t.GetValue(), "the weights sum up to %d", sum)
		}
		return nil
	}
	return bad("cluster_specifier", fmt.Sprintf("%T", x.GetClusterSpecifier()), "want cluster or weighted_clusters")
}

func forwardTimeouts(f *route.Forward, x *routev3.RouteAction) error {
	var err error
	if f.Timeout, err = duration("timeout", x.GetTimeout(), defaultRouteTimeout); err != nil {
		return err
	}
	if f.IdleTimeout, err = duration("idle_timeout", x.GetIdleTimeout(), 0); err != nil {
		return err
	}
	if x.GetMaxGrpcTimeout() != nil {
		f.UseGRPC = true
		if f.MaxGRPC, err = duration("max_grpc_timeout", x.GetMaxGrpcTimeout(), 0); err != nil {
			return err
		}
	}
	m := x.GetMaxStreamDuration()
	if m.GetGrpcTimeoutHeaderMax() != nil {
		f.UseGRPC = true
		if f.MaxGRPC, err = duration("max_stream_duration.grpc_timeout_header_max", m.GetGrpcTimeoutHeaderMax(), 0); err != nil {
			return err
		}
	}
	if m.GetMaxStreamDuration() != nil {
		f.MaxStreamDuration, err = duration("max_stream_duration.max_stream_duration", m.GetMaxStreamDuration(), 0)
	}
	return err
}

func hashPolicy(x *routev3.RouteAction_HashPolicy) (route.HashPolicy, error) {
	h := route.HashPolicy{Terminal: x.GetTerminal()}
	switch p := x.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		h.Kind, h.Name = route.HashHeader, strings.ToLower(p.Header.GetHeaderName())
	case *routev3.RouteAction_HashPolicy_Cookie_:
		h.Kind, h.Name, h.Path = route.HashCookie, p.Cookie.GetName(), p.Cookie.GetPath()
		var err error
		if h.TTL, err = duration("cookie.ttl", p.Cookie.GetTtl(), 0); err != nil {
			return h, err
		}
		h.Generate = p.Cookie.GetTtl() != nil // 0s: a session cookie
		for _, a := range p.Cookie.GetAttributes() {
			h.Attrs = append(h.Attrs, [2]string{a.GetName(), a.GetValue()})
		}
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		if !p.ConnectionProperties.GetSourceIp() {
			return h, bad("connection_properties.source_ip", false, "want true")
		}
		h.Kind = route.HashSourceIP
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		h.Kind, h.Name = route.HashQuery, p.QueryParameter.GetName()
	default:
		return h, bad("policy_specifier", fmt.Sprintf("%T", p), "want header, cookie, connection_properties or query_parameter")
	}
	return h, nil
}

// retryConditions are the words of retry_on (Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on).
var retryConditions = map[string]route.RetryOn{
	"5xx": route.Retry5xx, "gateway-error": route.RetryGatewayError, "reset": route.RetryReset,
	"reset-before-request": route.RetryResetBeforeRequest, "connect-failure": route.RetryConnectFailure,
	"retriable-4xx": route.RetryRetriable4xx, "refused-stream": route.RetryRefusedStream,
	"retriable-status-codes": route.RetryRetriableStatusCodes, "cancelled": route.RetryGRPCCancelled,
	"deadline-exceeded": route.RetryGRPCDeadlineExceeded, "internal": route.RetryGRPCInternal,
	"resource-exhausted": route.RetryGRPCResourceExhausted, "unavailable": route.RetryGRPCUnavailable,
	"envoy-ratelimited": route.RetryEnvoyRateLimited,
}

const typePreviousHosts = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"

func retryPolicy(path string, x *routev3.RetryPolicy) (*route.Retry, error) {
	if x == nil {
		return nil, nil
	}
	r := &route.Retry{Attempts: 1, BaseInterval: 25 * time.Millisecond}
	if n := x.GetNumRetries(); n != nil {
		r.Attempts = n.GetValue()
	}
	for word := range strings.SplitSeq(x.GetRetryOn(), ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		on, ok := retryConditions[word]
		if !ok {
			return nil, bad(path+".retry_on", word, "condition not supported")
		}
		r.On |= on
	}
	for _, s := range x.GetRetriableStatusCodes() {
		r.StatusCodes = append(r.StatusCodes, int(s))
	}
	var err error
	if r.PerTryTimeout, err = duration(path+".per_try_timeout", x.GetPerTryTimeout(), 0); err != nil {
		return nil, err
	}
	if b := x.GetRetryBackOff(); b != nil {
		if r.BaseInterval, err = duration(path+".retry_back_off.base_interval", b.GetBaseInterval(), r.BaseInterval); err != nil {
			return nil, err
		}
	}
	if r.MaxInterval, err = duration(path+".retry_back_off.max_interval", x.GetRetryBackOff().GetMaxInterval(), 10*r.BaseInterval); err != nil {
		return nil, err
	}
	if r.MaxInterval < r.BaseInterval {
		return nil, bad(path+".retry_back_off.max_interval", r.MaxInterval, "below base_interval %v", r.BaseInterval)
	}
	if n := x.GetHostSelectionRetryMaxAttempts(); n < 0 || n > 1000 {
		return nil, bad(path+".host_selection_retry_max_attempts", n, "want 0 to 1000")
	}
	r.HostAttempts = max(uint32(x.GetHostSelectionRetryMaxAttempts()), 1)
	for i, p := range x.GetRetryHostPredicate() {
		if n := p.GetTypedConfig().MessageName(); n != typePreviousHosts {
			return nil, index(path+".retry_host_predicate", i, bad("typed_config.type_url", p.GetTypedConfig().GetTypeUrl(), "want %s", typePreviousHosts))
		}
		if err := unpack(p.GetTypedConfig(), new(previousv3.PreviousHostsPredicate)); err != nil {
			return nil, index(path+".retry_host_predicate", i, err)
		}
		r.AvoidPrevious = true
	}
	return r, nil
}
