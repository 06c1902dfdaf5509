package compile

import (
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// defaultSniff is Envoy's listener_filters_timeout.
const defaultSniff = 15 * time.Second

// listener is a compiled LDS resource: everything but what other resources add.
type listener struct {
	base     *config.Listener         // Chains and Default are set by resolve
	chains   []*chain                 // in order
	fallback *chain                   // the default chain; nil: none
	routes   map[string]time.Duration // RDS names and how long to wait for them
	clusters []string                 // of TCP chains and inline routes
}

// chain is a compiled filter chain. A listener's next version takes over the
// chains whose bytes did not change, so that their connections live on.
type chain struct {
	key    string // what it was compiled from
	base   *config.FilterChain
	tls    *pendingDownstreamTLS
	routes map[string]time.Duration

	secrets []*config.Secret    // what made was made with
	made    *config.FilterChain // the latest resolved form
}

// resolve returns the chain with its secrets; the same pointer for the same secrets.
func (ch *chain) resolve(secrets map[string]*config.Secret) *config.FilterChain {
	names := ch.tls.names()
	if len(names) == 0 {
		return ch.base
	}
	now := pick(secrets, names)
	if ch.made == nil || !slices.Equal(now, ch.secrets) {
		o := *ch.base
		o.TLS, o.Origin = ch.tls.resolve(secrets), ch.base
		ch.made, ch.secrets = &o, now
	}
	return ch.made
}

// clusters lists those that the chain itself names.
func (ch *chain) clusters() []string {
	switch {
	case ch.base.HTTP != nil && ch.base.HTTP.Routes != nil:
		return clustersOf(ch.base.HTTP.Routes)
	case ch.base.TCP != nil && ch.base.TCP.Cluster != "":
		return []string{ch.base.TCP.Cluster}
	case ch.base.TCP != nil:
		var names []string
		for i := range ch.base.TCP.Weighted {
			names = append(names, ch.base.TCP.Weighted[i].Cluster)
		}
		return names
	}
	return nil
}

func (l *listener) all() []*chain {
	if l.fallback == nil {
		return l.chains
	}
	return append(slices.Clip(l.chains), l.fallback)
}

func (l *listener) secrets() []string {
	var n []string
	for _, ch := range l.all() {
		n = append(n, ch.tls.names()...)
	}
	return n
}

// find returns the chain that was compiled from the same bytes under the same direction, nil if none.
func (l *listener) find(key string, dir stream.Direction) *chain {
	if l == nil || l.base.Direction != dir {
		return nil
	}
	for _, ch := range l.all() {
		if ch.key == key {
			return ch
		}
	}
	return nil
}

// resolve fills chains and secrets in.
func (l *listener) resolve(secrets map[string]*config.Secret) *config.Listener {
	b := *l.base
	b.Chains = make([]*config.FilterChain, len(l.chains))
	for i, ch := range l.chains {
		b.Chains[i] = ch.resolve(secrets)
	}
	if l.fallback != nil {
		b.Default = l.fallback.resolve(secrets)
	}
	return &b
}

func (c *Compiler) listener(body []byte) (*listener, error) {
	var x listenerv3.Listener
	if err := decode(body, &x); err != nil {
		return nil, err
	}
	addr, err := socketAddress("address", x.GetAddress())
	if err != nil {
		return nil, err
	}
	if x.GetTransparent().GetValue() {
		return nil, bad("transparent", true, "transparent sockets are not supported; redirect instead")
	}
	b := &config.Listener{
		Name: x.GetName(), Address: addr, BindToPort: x.GetBindToPort() == nil || x.GetBindToPort().GetValue(), UseOriginalDst: x.GetUseOriginalDst().GetValue(),
	}
	if b.Name == "" {
		return nil, missing("name", "want the listener's name")
	}
	if b.Direction, err = c.direction(x.GetTrafficDirection()); err != nil {
		return nil, err
	}
	if err := listenerFilters(&x, b); err != nil {
		return nil, err
	}
	if b.AccessLogs, err = c.accessLogs(x.GetAccessLog(), true); err != nil {
		return nil, err
	}
	l := &listener{base: b, routes: map[string]time.Duration{}}
	return l, c.filterChains(&x, l)
}

func (c *Compiler) direction(d corev3.TrafficDirection) (stream.Direction, error) {
	switch {
	case d == corev3.TrafficDirection_INBOUND:
		return stream.Inbound, nil
	case d != corev3.TrafficDirection_OUTBOUND && d != corev3.TrafficDirection_UNSPECIFIED:
		return 0, bad("traffic_direction", d, "unknown")
	case c.set.Gateway:
		return stream.Gateway, nil
	}
	return stream.Outbound, nil
}

func (c *Compiler) filterChains(x *listenerv3.Listener, l *listener) error {
	var prev *listener
	if e := c.listeners.byName[l.base.Name]; e != nil {
		prev = e.made
	}
	seen := map[string]string{}
	for i, fc := range x.GetFilterChains() {
		path := fmt.Sprintf("filter_chains[%d:%s]", i, fc.GetName())
		ch, err := c.filterChain(fc, l.base.Direction, prev)
		if err != nil {
			return at(path, err)
		}
		key := fmt.Sprintf("%+v", ch.base.Match)
		if other, ok := seen[key]; ok {
			return at(path, fmt.Errorf("same filter_chain_match as chain %q", other))
		}
		seen[key] = fc.GetName()
		l.chains = append(l.chains, ch)
	}
	if d := x.GetDefaultFilterChain(); d != nil {
		if d.GetFilterChainMatch() != nil {
			return bad("default_filter_chain.filter_chain_match", "set", "the default chain has no condition; remove it")
		}
		ch, err := c.filterChain(d, l.base.Direction, prev)
		if err != nil {
			return at("default_filter_chain", err)
		}
		l.fallback = ch
	}
	for _, ch := range l.all() {
		l.clusters = append(l.clusters, ch.clusters()...)
		for name, d := range ch.routes {
			l.routes[name] = max(d, l.routes[name])
		}
	}
	if len(l.all()) == 0 && !l.base.UseOriginalDst {
		return missing("filter_chains", "want at least one filter chain")
	}
	return nil
}

// Types of listener filters.
const (
	typeOriginalDst   = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
	typeTLSInspector  = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
	typeHTTPInspector = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"
	typeProxyProtocol = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
)

func listenerFilters(x *listenerv3.Listener, b *config.Listener) error {
	in := &b.Inspect
	var err error
	if in.Timeout, err = duration("listener_filters_timeout", x.GetListenerFiltersTimeout(), defaultSniff); err != nil {
		return err
	}
	in.ContinueOnTimeout = x.GetContinueOnListenerFiltersTimeout()
	for i, f := range x.GetListenerFilters() {
		path := fmt.Sprintf("listener_filters[%d:%s]", i, f.GetName())
		off, err := disabledPorts(f.GetFilterDisabled())
		if err != nil {
			return at(path, err)
		}
		switch f.GetTypedConfig().MessageName() {
		case typeOriginalDst:
			b.OriginalDst = true
			err = unpack(f.GetTypedConfig(), new(originaldstv3.OriginalDst))
			if err == nil && len(off) > 0 {
				err = bad("filter_disabled", off, "not supported for this filter")
			}
		case typeTLSInspector:
			in.TLS, in.NoTLS = true, off
			err = unpack(f.GetTypedConfig(), new(tlsinspectorv3.TlsInspector))
		case typeHTTPInspector:
			in.HTTP, in.NoHTTP = true, off
			err = unpack(f.GetTypedConfig(), new(httpinspectorv3.HttpInspector))
		case typeProxyProtocol:
			err = proxyProtocol(f, in)
			if err == nil && len(off) > 0 {
				err = bad("filter_disabled", off, "not supported for this filter")
			}
		default:
			err = bad("typed_config.type_url", f.GetTypedConfig().GetTypeUrl(), "listener filter not supported; supported are %s, %s, %s and %s",
				typeOriginalDst, typeTLSInspector, typeHTTPInspector, typeProxyProtocol)
		}
		if err != nil {
			return at(path, err)
		}
	}
	return nil
}

// proxyProtocol reads the PROXY protocol filter. It comes before whatever looks at what
// follows its header, because that is when this proxy takes the header.
func proxyProtocol(f *listenerv3.ListenerFilter, in *config.Inspect) error {
	var x proxyprotocolv3.ProxyProtocol
	if err := unpack(f.GetTypedConfig(), &x); err != nil {
		return err
	}
	if in.TLS || in.HTTP {
		return bad("name", f.GetName(), "comes after a TLS or HTTP inspector; put it before them")
	}
	if in.ProxyProtocol {
		return bad("name", f.GetName(), "is there twice; remove one")
	}
	in.ProxyProtocol, in.ProxyOptional = true, x.GetAllowRequestsWithoutProxyProtocol()
	for i, v := range x.GetDisallowedVersions() {
		switch v {
		case corev3.ProxyProtocolConfig_V1:
			in.ProxyNoV1 = true
		case corev3.ProxyProtocolConfig_V2:
			in.ProxyNoV2 = true
		default:
			return index("typed_config.disallowed_versions", i, bad("", v, "want V1 or V2"))
		}
	}
	if in.ProxyNoV1 && in.ProxyNoV2 {
		return bad("typed_config.disallowed_versions", "V1, V2", "no version is left; remove the filter or one of them")
	}
	return nil
}

// disabledPorts reads filter_disabled: one destination port range or an or_match of such.
func disabledPorts(p *listenerv3.ListenerFilterChainMatchPredicate) ([]config.PortRange, error) {
	switch r := p.GetRule().(type) {
	case nil:
		return nil, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		s, e := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		if s < 0 || e <= s || e > 65536 {
			return nil, bad("filter_disabled.destination_port_range", fmt.Sprintf("[%d,%d)", s, e), "want a range of ports")
		}
		return []config.PortRange{{Start: uint16(s), End: uint16(min(e, 65535))}}, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		var out []config.PortRange
		for i, q := range r.OrMatch.GetRules() {
			o, err := disabledPorts(q)
			if err != nil {
				return nil, index("filter_disabled.or_match.rules", i, err)
			}
			out = append(out, o...)
		}
		return out, nil
	}
	return nil, bad("filter_disabled", fmt.Sprintf("%T", p.GetRule()), "want destination_port_range or or_match of such")
}
