package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

const (
	loopback = "127.0.0.1"
	// principals and pods of the two ends; the pods are ACCOUNT-1 in config/pods.yaml.
	clientPrincipal = trustDomain + "/ns/default/sa/" + clientAccount
)

// meshConf fills config/mesh.yaml and config/pods.yaml.
type meshConf struct {
	*conf
	ServerAccount, ClientAccount, ClientPrincipal string
	ServerPort                                    int      // where the server's pod is reached
	Mesh                                          bool     // the server has a sidecar
	Others                                        []string // 99 more services
}

// translated is what our control plane gives to the sidecar of c. Nothing is
// captured here, so the one change to it is where it listens and, at the server,
// where the workload is.
func translated(c *conf) ([]*xds.Resource, error) {
	m := &meshConf{
		conf: c, ServerAccount: serverAccount, ClientAccount: clientAccount, ClientPrincipal: clientPrincipal,
		ServerPort: c.Upstream, Mesh: c.Role != "one", Others: services("a")[1:],
	}
	node := &xds.Node{
		Type: xds.Sidecar, IP: netip.MustParseAddr("10.244.0.1"), Name: clientAccount + "-1", Namespace: "default",
		Domain: "default.svc.cluster.local", WeftProxy: true,
	}
	if c.Role == "b" {
		m.ServerPort = c.Listen
		node.Name, node.IP = serverAccount+"-1", netip.MustParseAddr(loopback)
	}
	node.ID = xds.NodeID(node.Type, node.IP, node.Name, node.Namespace, node.Domain)
	world, mesh, err := m.world()
	if err != nil {
		return nil, err
	}
	snap := translate.New(world, mesh)
	var out []*xds.Resource
	for _, typ := range []string{xds.ListenerType, xds.RouteType, xds.ClusterType, xds.EndpointType} {
		rs, err := snap.Resources(node, typ, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	return c.rebind(out)
}

func (m *meshConf) world() (*snapshot.World, model.Mesh, error) {
	mesh := snapshot.Defaults(model.Mesh{})
	var changes []snapshot.Change
	for _, f := range []struct {
		name string
		opts convert.Options
	}{{"mesh.yaml", convert.Options{}}, {"pods.yaml", convert.Options{Pods: true}}} {
		text, err := render(f.name, m)
		if err != nil {
			return nil, mesh, err
		}
		objects, problems := convert.Decode(admin.File{Name: f.name, Content: string(text)}, f.opts)
		for i := range objects {
			values, more := convert.ToModel(&objects[i], mesh)
			problems = append(problems, more...)
			changes = append(changes, snapshot.Change{Key: objects[i].Key, Objects: values})
		}
		if convert.HasErrors(problems) {
			return nil, mesh, fmt.Errorf("%s: %+v", f.name, problems)
		}
	}
	return snapshot.Build(snapshot.Empty(mesh), changes, time.Now()), mesh, nil
}

// rebind makes the listener that is measured listen at c.Listen, the two that
// capture redirects to at free ports, and the server's cluster lead to c.Upstream.
func (c *conf) rebind(rs []*xds.Resource) ([]*xds.Resource, error) {
	var err error
	spare := c.spare[:]
	out := make([]*xds.Resource, 0, len(rs))
	bound := 0
	for _, r := range rs {
		switch {
		case r.TypeURL == xds.ListenerType && c.isEntry(r):
			r, err = bindTo(r, c.Listen)
			bound++
		case r.TypeURL == xds.ListenerType && (r.Name == xds.ListenerVirtualOutbound || r.Name == xds.ListenerVirtualInbound):
			r, err = bindTo(r, spare[0])
			spare = spare[1:]
		case r.TypeURL == xds.ClusterType && c.Role == "b" && r.Name == xds.InboundCluster(uint16(c.Listen)):
			r, err = leadTo(r, c.Upstream)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		out = append(out, r)
	}
	if bound != 1 {
		return nil, fmt.Errorf("translation has %d listeners for the %s case, want 1", bound, c.Kind)
	}
	return out, nil
}

// isEntry tells which listener takes the load.
func (c *conf) isEntry(r *xds.Resource) bool {
	switch {
	case c.Role == "b":
		return r.Name == xds.ListenerVirtualInbound
	case c.Kind == kindTCP:
		return strings.HasSuffix(r.Name, "_80") && bytes.Contains(r.Body, []byte(xds.OutboundCluster(80, "", benchHost)))
	}
	return r.Name == "0.0.0.0_80"
}

func bindTo(r *xds.Resource, port int) (*xds.Resource, error) {
	var l listenerv3.Listener
	if err := proto.Unmarshal(r.Body, &l); err != nil {
		return r, err
	}
	l.Address, l.BindToPort, l.UseOriginalDst = address(port), nil, nil
	l.ListenerFilters = slices.DeleteFunc(l.ListenerFilters, func(f *listenerv3.ListenerFilter) bool {
		return f.Name == "envoy.filters.listener.original_dst" // without capture there is none, and it takes nothing else
	})
	return encode(r, &l)
}

// leadTo replaces "where the connection was going", which only capture knows.
func leadTo(r *xds.Resource, port int) (*xds.Resource, error) {
	var c clusterv3.Cluster
	if err := proto.Unmarshal(r.Body, &c); err != nil {
		return r, err
	}
	c.ClusterDiscoveryType, c.LbPolicy = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, clusterv3.Cluster_ROUND_ROBIN
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{
		ClusterName: c.Name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(port)}},
		}}}},
	}
	return encode(r, &c)
}

func encode(r *xds.Resource, m proto.Message) (*xds.Resource, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return xds.NewResource(r.TypeURL, r.Name, b), err
}

func address(port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: loopback, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}
