package compile

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// defaultOverprovisioning is Envoy's overprovisioning_factor in percent.
const defaultOverprovisioning = 140

func (c *Compiler) endpoints(body []byte) ([]*config.Endpoint, error) {
	var x endpointv3.ClusterLoadAssignment
	if err := decode(body, &x); err != nil {
		return nil, err
	}
	return loadAssignment(&x)
}

// loadAssignment flattens localities into endpoints in the order given.
func loadAssignment(x *endpointv3.ClusterLoadAssignment) ([]*config.Endpoint, error) {
	if f := x.GetPolicy().GetOverprovisioningFactor(); f != nil && f.GetValue() != defaultOverprovisioning {
		return nil, bad("policy.overprovisioning_factor", f.GetValue(), "want %d", defaultOverprovisioning)
	}
	var out []*config.Endpoint
	for i, l := range x.GetEndpoints() {
		loc := config.Locality{Region: l.GetLocality().GetRegion(), Zone: l.GetLocality().GetZone(), SubZone: l.GetLocality().GetSubZone()}
		for j, e := range l.GetLbEndpoints() {
			ep, err := lbEndpoint(e)
			if err != nil {
				return nil, index("endpoints", i, index("lb_endpoints", j, err))
			}
			ep.Locality, ep.Priority, ep.LocalityWeight = loc, l.GetPriority(), l.GetLoadBalancingWeight().GetValue()
			out = append(out, ep)
		}
	}
	return out, nil
}

func lbEndpoint(e *endpointv3.LbEndpoint) (*config.Endpoint, error) {
	if e.GetEndpoint() == nil {
		return nil, missing("endpoint", "want an address")
	}
	addr, err := socketAddress("endpoint.address", e.GetEndpoint().GetAddress())
	if err != nil {
		return nil, err
	}
	if addr.Port() == 0 {
		return nil, bad("endpoint.address.socket_address.port_value", 0, "want 1 to 65535")
	}
	ep := &config.Endpoint{Addr: addr, Hostname: e.GetEndpoint().GetHostname(), Weight: 1}
	if w := e.GetLoadBalancingWeight(); w != nil {
		ep.Weight = max(w.GetValue(), 1)
	}
	if ep.Health, err = health(e.GetHealthStatus()); err != nil {
		return nil, err
	}
	return ep, endpointMetadata(ep, e.GetMetadata())
}

func health(s corev3.HealthStatus) (config.Health, error) {
	switch s {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY:
		return config.Healthy, nil
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		return config.Unhealthy, nil
	case corev3.HealthStatus_DRAINING:
		return config.Draining, nil
	}
	return 0, bad("health_status", s, "want UNKNOWN, HEALTHY, UNHEALTHY, TIMEOUT or DRAINING")
}

// endpointMetadata reads what chooses TLS settings and what metrics say of the peer.
// Other namespaces of the metadata inform nobody here and are not an error.
func endpointMetadata(ep *config.Endpoint, m *corev3.Metadata) error {
	if t := m.GetFilterMetadata()[xds.MetadataTransport]; t != nil {
		ep.Transport = make(map[string]string, len(t.GetFields()))
		for k, v := range t.GetFields() {
			s, ok := stringValue(v)
			if !ok {
				return bad("metadata."+xds.MetadataTransport+"."+k, v, "want a string")
			}
			ep.Transport[k] = s
		}
	}
	f := m.GetFilterMetadata()[xds.MetadataIstio].GetFields()
	if w := f["workload"].GetStringValue(); w != "" {
		wl, err := ParseWorkload(w)
		if err != nil {
			return at("metadata."+xds.MetadataIstio+".workload", err)
		}
		ep.Workload = wl
	}
	if p := f["principal"].GetStringValue(); p != "" {
		id, err := spiffe.Parse(p)
		if err != nil {
			return at("metadata."+xds.MetadataIstio+".principal", err)
		}
		ep.Identity = id
	}
	if ep.Workload != nil {
		ep.Workload.App, ep.Workload.Version = f["app"].GetStringValue(), f["version"].GetStringValue()
		ep.Workload.Principal = ep.Identity.String()
	}
	return nil
}

// ParseWorkload reads Istio's "name;namespace;canonical-name;canonical-revision;cluster".
// Later parts (Istio appends some) are ignored, missing ones are empty.
func ParseWorkload(s string) (*stream.Workload, error) {
	p := strings.Split(s, ";")
	if len(p) < 2 {
		return nil, fmt.Errorf("workload %s: want name;namespace;canonical-name;canonical-revision;cluster", quote(s))
	}
	for len(p) < 5 {
		p = append(p, "")
	}
	return &stream.Workload{Name: p[0], Namespace: p[1], CanonicalName: p[2], CanonicalRevision: p[3], Cluster: p[4]}, nil
}

type dnsHost struct {
	host string
	port uint16
}

func dnsEndpoint(e *endpointv3.LbEndpoint, l *endpointv3.LocalityLbEndpoints) (*dnsHost, error) {
	if l.GetPriority() != 0 {
		return nil, bad("priority", l.GetPriority(), "not supported for DNS clusters")
	}
	s := e.GetEndpoint().GetAddress().GetSocketAddress()
	if s == nil {
		return nil, missing("endpoint.address.socket_address", "want a host name and port")
	}
	host, port, err := hostPort("endpoint.address.socket_address", s)
	if err != nil {
		return nil, err
	}
	if host == "" || port == 0 {
		return nil, bad("endpoint.address.socket_address", fmt.Sprintf("%s:%d", host, port), "want a host name and a port")
	}
	return &dnsHost{host, port}, nil
}

// stringValue is a Value as a string; numbers and bools in their JSON form.
func stringValue(v *structpb.Value) (string, bool) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue, true
	case *structpb.Value_BoolValue:
		return fmt.Sprint(k.BoolValue), true
	case *structpb.Value_NumberValue:
		return fmt.Sprint(k.NumberValue), true
	}
	return "", false
}
