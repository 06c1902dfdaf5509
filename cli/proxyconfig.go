package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	// The types that a config dump can hold inside Any.
	_ "github.com/cncf/xds/go/udpa/type/v1"
	_ "github.com/cncf/xds/go/xds/type/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcp "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/xds"
)

func (a *app) proxyConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "proxy-config",
		Aliases: []string{"pc"},
		Short:   "Show what a proxy is doing: its listeners, routes, clusters, endpoints, secrets and names",
		Example: `  weft proxy-config routes productpage-v1
  weft pc clusters default/reviews-v2 -o json
  weft pc endpoints productpage-v1`,
		Args: usageArgs(cobra.NoArgs),
		RunE: showHelp,
	}
	sub := func(name, alias, short string, run func(ctx context.Context, p podRef) error) {
		var ns string
		c := &cobra.Command{
			Use:     name + " POD",
			Aliases: []string{alias},
			Short:   short,
			Example: "  weft proxy-config " + name + " productpage-v1",
			Args:    usageArgs(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error {
				p, err := a.findPod(cmd.Context(), ns, args[0])
				if err != nil {
					return err
				}
				return run(cmd.Context(), p)
			},
		}
		a.namespaceFlag(c, &ns, "default", "namespace of the pod")
		c.ValidArgsFunction = a.completePods
		a.outputFlag(c)
		cmd.AddCommand(a.eitherMesh(c))
	}
	sub("listeners", "listener", "Where it accepts connections and what happens to them", a.pcListeners)
	sub("routes", "route", "Which request goes where", a.pcRoutes)
	sub("clusters", "cluster", "The destinations it knows", a.pcClusters)
	sub("endpoints", "endpoint", "The addresses behind the destinations", a.pcEndpoints)
	sub("secrets", "secret", "Its certificates (keys are never shown)", a.pcSecrets)
	sub("names", "name", "What it answers the pod's DNS queries from, where they come to it", a.pcNames)
	return cmd
}

// podRef names one pod.
type podRef struct{ ns, name string }

func (p podRef) String() string { return p.ns + "/" + p.name }

// findPod accepts a pod's full name, a unique prefix of it, a Deployment's name, or NAMESPACE/….
func (a *app) findPod(ctx context.Context, ns, ref string) (podRef, error) {
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "deployment/"), "deploy/")
	ns, name := splitRef(ref, ns)
	pods, err := a.mesh().Pods(ctx)
	if err != nil {
		return podRef{}, err
	}
	var fits, known []string
	for _, p := range pods {
		if p.Namespace != ns {
			continue
		}
		known = append(known, p.Name)
		switch {
		case p.Name == name:
			return podRef{ns, name}, nil
		case p.Phase == admin.PodStopping:
		case p.Deployment == name, strings.HasPrefix(p.Name, name):
			fits = append(fits, p.Name)
		}
	}
	if len(fits) > 0 {
		slices.Sort(fits)
		return podRef{ns, fits[0]}, nil
	}
	slices.Sort(known)
	hint := fmt.Sprintf("no pod runs in namespace %q; see weft ps", ns)
	if len(known) > 0 {
		hint = "pods there: " + strings.Join(known, ", ")
	}
	return podRef{}, withHint(fmt.Errorf("pod %q not found in namespace %q", name, ns), hint)
}

// dump fetches one part of the proxy's config dump into m.
func (a *app) dump(ctx context.Context, p podRef, m proto.Message) error {
	b, err := a.adminGet(ctx, p, "/config_dump?"+url.Values{"include_eds": {"true"}}.Encode())
	if err != nil {
		return err
	}
	var all adminv3.ConfigDump
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &all); err != nil {
		return fmt.Errorf("config dump of %s: %w", p, err)
	}
	for _, c := range all.GetConfigs() {
		if c.MessageIs(m) {
			return c.UnmarshalTo(m)
		}
	}
	return fmt.Errorf("config dump of %s: holds no %s", p, m.ProtoReflect().Descriptor().Name())
}

// protoData prints messages as -o asks, or the table.
func protoData[M proto.Message](a *app, list []M, table func() error) error {
	if a.output == "" {
		return table()
	}
	raws := make([]any, 0, len(list))
	for _, m := range list {
		v, err := protoValue(m)
		if err != nil {
			return err
		}
		raws = append(raws, v)
	}
	return a.data(raws, nil)
}

func unpack[M proto.Message](list []*anypb.Any, fresh func() M) ([]M, error) {
	var out []M
	for _, x := range list {
		m := fresh()
		if err := x.UnmarshalTo(m); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (a *app) pcListeners(ctx context.Context, p podRef) error {
	var d adminv3.ListenersConfigDump
	if err := a.dump(ctx, p, &d); err != nil {
		return err
	}
	var raw []*anypb.Any
	for _, l := range d.GetDynamicListeners() {
		raw = append(raw, l.GetActiveState().GetListener())
	}
	ls, err := unpack(raw, func() *listener.Listener { return &listener.Listener{} })
	if err != nil {
		return err
	}
	return protoData(a, ls, func() error {
		t := newTable("NAME", "ADDRESS", "MATCH", "DESTINATION")
		for _, l := range ls {
			sa := l.GetAddress().GetSocketAddress()
			addr := fmt.Sprintf("%s:%d", sa.GetAddress(), sa.GetPortValue())
			chains := l.GetFilterChains()
			for _, fc := range chains {
				t.add(l.GetName(), addr, chainMatch(fc), chainTarget(fc))
			}
			if fc := l.GetDefaultFilterChain(); fc != nil {
				t.add(l.GetName(), addr, "default", chainTarget(fc))
			}
		}
		return t.write(a.out(), a.colors(a.env.Stdout))
	})
}

func chainMatch(fc *listener.FilterChain) string {
	m := fc.GetFilterChainMatch()
	var parts []string
	if m.GetTransportProtocol() != "" {
		parts = append(parts, m.GetTransportProtocol())
	}
	if len(m.GetApplicationProtocols()) > 0 {
		parts = append(parts, "alpn "+strings.Join(m.GetApplicationProtocols(), ","))
	}
	if len(m.GetServerNames()) > 0 {
		parts = append(parts, "sni "+strings.Join(m.GetServerNames(), ","))
	}
	for _, r := range m.GetPrefixRanges() {
		parts = append(parts, fmt.Sprintf("addr %s/%d", r.GetAddressPrefix(), r.GetPrefixLen().GetValue()))
	}
	if m.GetDestinationPort() != nil {
		parts = append(parts, fmt.Sprintf("port %d", m.GetDestinationPort().GetValue()))
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, "; ")
}

func chainTarget(fc *listener.FilterChain) string {
	for _, f := range fc.GetFilters() {
		m, err := f.GetTypedConfig().UnmarshalNew()
		if err != nil {
			continue
		}
		switch m := m.(type) {
		case *hcm.HttpConnectionManager:
			if m.GetRds() != nil {
				return "route " + m.GetRds().GetRouteConfigName()
			}
			return "inline route " + m.GetRouteConfig().GetName()
		case *tcp.TcpProxy:
			if m.GetWeightedClusters() != nil {
				var cs []string
				for _, c := range m.GetWeightedClusters().GetClusters() {
					cs = append(cs, fmt.Sprintf("%s (%d)", c.GetName(), c.GetWeight()))
				}
				return "cluster " + strings.Join(cs, ", ")
			}
			return "cluster " + m.GetCluster()
		}
	}
	return "-"
}

func (a *app) pcRoutes(ctx context.Context, p podRef) error {
	var d adminv3.RoutesConfigDump
	if err := a.dump(ctx, p, &d); err != nil {
		return err
	}
	var raw []*anypb.Any
	for _, r := range d.GetDynamicRouteConfigs() {
		raw = append(raw, r.GetRouteConfig())
	}
	for _, r := range d.GetStaticRouteConfigs() {
		raw = append(raw, r.GetRouteConfig())
	}
	rs, err := unpack(raw, func() *route.RouteConfiguration { return &route.RouteConfiguration{} })
	if err != nil {
		return err
	}
	return protoData(a, rs, func() error {
		t := newTable("NAME", "VIRTUAL HOST", "DOMAINS", "MATCH", "ACTION")
		for _, rc := range rs {
			for _, vh := range rc.GetVirtualHosts() {
				for _, r := range vh.GetRoutes() {
					t.add(rc.GetName(), vh.GetName(), shortList(vh.GetDomains()), routeMatch(r), routeAction(r))
				}
			}
		}
		return t.write(a.out(), a.colors(a.env.Stdout))
	})
}

func shortList(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	if len(s) > 2 {
		return fmt.Sprintf("%s + %d more", s[0], len(s)-1)
	}
	return strings.Join(s, ", ")
}

func routeMatch(r *route.Route) string {
	m := r.GetMatch()
	s := ""
	switch {
	case m.GetPath() != "":
		s = m.GetPath()
	case m.GetSafeRegex() != nil:
		s = "~" + m.GetSafeRegex().GetRegex()
	case m.GetPathSeparatedPrefix() != "":
		s = m.GetPathSeparatedPrefix() + "/*"
	default:
		s = m.GetPrefix() + "*"
	}
	for _, h := range m.GetHeaders() {
		s += " +" + h.GetName()
	}
	for _, q := range m.GetQueryParameters() {
		s += " ?" + q.GetName()
	}
	return s
}

func routeAction(r *route.Route) string {
	switch x := r.GetAction().(type) {
	case *route.Route_Redirect:
		return "redirect"
	case *route.Route_DirectResponse:
		return fmt.Sprintf("answer %d", x.DirectResponse.GetStatus())
	case *route.Route_Route:
		if w := x.Route.GetWeightedClusters(); w != nil {
			var cs []string
			for _, c := range w.GetClusters() {
				cs = append(cs, fmt.Sprintf("%s (%d)", c.GetName(), c.GetWeight().GetValue()))
			}
			return strings.Join(cs, ", ")
		}
		return x.Route.GetCluster()
	}
	return "-"
}

func (a *app) pcClusters(ctx context.Context, p podRef) error {
	var d adminv3.ClustersConfigDump
	if err := a.dump(ctx, p, &d); err != nil {
		return err
	}
	var raw []*anypb.Any
	for _, c := range d.GetDynamicActiveClusters() {
		raw = append(raw, c.GetCluster())
	}
	cs, err := unpack(raw, func() *cluster.Cluster { return &cluster.Cluster{} })
	if err != nil {
		return err
	}
	return protoData(a, cs, func() error {
		t := newTable("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "LB", "TLS")
		for _, c := range cs {
			dir, port, subset, host, ok := xds.ParseCluster(c.GetName())
			tls := "-"
			if c.GetTransportSocket() != nil || len(c.GetTransportSocketMatches()) > 0 {
				tls = "mTLS or plaintext"
				if len(c.GetTransportSocketMatches()) == 0 {
					tls = "always"
				}
			}
			if !ok {
				t.add(c.GetName(), "-", "-", "-", c.GetType().String(), c.GetLbPolicy().String(), tls)
				continue
			}
			t.add(orDash(host), fmt.Sprint(port), orDash(subset), dir, c.GetType().String(), c.GetLbPolicy().String(), tls)
		}
		return t.write(a.out(), a.colors(a.env.Stdout))
	})
}

func (a *app) pcEndpoints(ctx context.Context, p podRef) error {
	var d adminv3.EndpointsConfigDump
	if err := a.dump(ctx, p, &d); err != nil {
		return err
	}
	var raw []*anypb.Any
	for _, e := range d.GetDynamicEndpointConfigs() {
		raw = append(raw, e.GetEndpointConfig())
	}
	es, err := unpack(raw, func() *endpoint.ClusterLoadAssignment { return &endpoint.ClusterLoadAssignment{} })
	if err != nil {
		return err
	}
	return protoData(a, es, func() error {
		t := newTable("ENDPOINT", "STATUS", "WORKLOAD", "CLUSTER")
		for _, e := range es {
			for _, l := range e.GetEndpoints() {
				for _, ep := range l.GetLbEndpoints() {
					sa := ep.GetEndpoint().GetAddress().GetSocketAddress()
					wl := ep.GetMetadata().GetFilterMetadata()["istio"].GetFields()["workload"].GetStringValue()
					wl, _, _ = strings.Cut(wl, ";")
					t.add(fmt.Sprintf("%s:%d", sa.GetAddress(), sa.GetPortValue()), ep.GetHealthStatus().String(), orDash(wl), e.GetClusterName())
				}
			}
		}
		return t.write(a.out(), a.colors(a.env.Stdout))
	})
}

func (a *app) pcSecrets(ctx context.Context, p podRef) error {
	b, err := a.adminGet(ctx, p, "/certs")
	if err != nil {
		return err
	}
	var d adminv3.Certificates
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &d); err != nil {
		return fmt.Errorf("certificates of %s: %w", p, err)
	}
	return protoData(a, d.GetCertificates(), func() error {
		t := newTable("TYPE", "IDENTITY", "SERIAL", "NOT BEFORE", "NOT AFTER")
		row := func(kind string, c *adminv3.CertificateDetails) {
			var names []string
			for _, n := range c.GetSubjectAltNames() {
				names = append(names, n.GetUri()+n.GetDns())
			}
			t.add(kind, orDash(strings.Join(names, ", ")), c.GetSerialNumber(), c.GetValidFrom().AsTime().Format("2006-01-02T15:04:05Z"), c.GetExpirationTime().AsTime().Format("2006-01-02T15:04:05Z"))
		}
		for _, c := range d.GetCertificates() {
			for _, x := range c.GetCertChain() {
				row("certificate", x)
			}
			for _, x := range c.GetCaCert() {
				row("root", x)
			}
		}
		return t.write(a.out(), a.colors(a.env.Stdout))
	})
}
