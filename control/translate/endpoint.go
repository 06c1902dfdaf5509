package translate

import (
	"cmp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// endpointsKey is all that a load assignment is made from. Rule matters for the labels of the subset only.
type endpointsKey struct {
	eps    *snapshot.Endpoints
	port   uint16
	subset string
	rule   *snapshot.Rule
	near   string // how the client orders them; "": as everybody
}

// endpoints makes (or finds) the load assignment of a target for a client.
func (s *Snapshot) endpoints(t *target, at *place) *xds.Resource {
	k := endpointsKey{eps: s.world.Endpoints(t.service.Key), port: t.port.Number, subset: t.subset}
	var near *nearness
	near, k.near = s.nearness(t, k.eps, at)
	if t.subset != "" || near != nil {
		k.rule = t.rule
	}
	return remember(s.cache, k, func() *xds.Resource {
		return s.resource(xds.EndpointType, t.name, assignment(t.name, filterSubset(k.eps.Of(t.port.Number), t), s.mesh.ClusterID, false, near))
	})
}

// assignment lists endpoints by locality, in order of the first of each, for a
// client that orders them (near not nil) the nearest first. Host names are left out unless
// the cluster resolves them.
func assignment(cluster string, eps []snapshot.Endpoint, clusterID string, names bool, near *nearness) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: cluster}
	byGroup := map[group]*endpointv3.LocalityLbEndpoints{}
	var order []group
	for i := range eps {
		e := &eps[i]
		if !e.Addr.IsValid() && !names {
			continue
		}
		g := group{locality: e.Locality}
		if near != nil {
			g.rank = near.rank(e)
		}
		l := byGroup[g]
		if l == nil {
			l = &endpointv3.LocalityLbEndpoints{Locality: locality(e.Locality), LoadBalancingWeight: u32(0)}
			byGroup[g], order = l, append(order, g)
		}
		l.LbEndpoints = append(l.LbEndpoints, lbEndpoint(e, clusterID))
		l.LoadBalancingWeight.Value += e.Weight
	}
	a.Endpoints = priorities(byGroup, order)
	if near != nil && len(near.Distribute) > 0 {
		distribute(near.distribution(), a, order)
	}
	return a
}

// locality reads region/zone/subzone.
func locality(s string) *corev3.Locality {
	p := localityOf(s)
	return &corev3.Locality{Region: p[0], Zone: p[1], SubZone: p[2]}
}

func lbEndpoint(e *snapshot.Endpoint, clusterID string) *endpointv3.LbEndpoint {
	addr := e.Hostname
	if e.Addr.IsValid() {
		addr = e.Addr.String()
	}
	health := corev3.HealthStatus_HEALTHY
	if e.Draining {
		health = corev3.HealthStatus_DRAINING
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(addr, uint32(e.Port))}},
		HealthStatus:   health, Metadata: endpointMetadata(e, clusterID), LoadBalancingWeight: u32(e.Weight),
	}
}

// endpointMetadata says whether the endpoint takes mTLS and which workload it
// is: "name;namespace;canonical name;canonical revision;cluster".
func endpointMetadata(e *snapshot.Endpoint, clusterID string) *corev3.Metadata {
	m := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	if e.MTLS {
		m.FilterMetadata[xds.MetadataTransport] = tlsMode("istio")
	}
	if w := e.Workload; w != nil {
		name, revision := canonical(w)
		v := strings.Join([]string{cmp.Or(w.WorkloadName, w.Name), w.Namespace, name, revision, clusterID}, ";")
		m.FilterMetadata[xds.MetadataIstio] = &structpb.Struct{Fields: map[string]*structpb.Value{"workload": structpb.NewStringValue(v)}}
	}
	if len(m.FilterMetadata) == 0 {
		return nil
	}
	return m
}

// canonical is the canonical service and revision of a workload (Istio's order of labels).
func canonical(w *model.Workload) (name, revision string) {
	l := w.Labels
	name = cmp.Or(l["service.istio.io/canonical-name"], l["app.kubernetes.io/name"], l["app"], w.WorkloadName, w.Name)
	revision = cmp.Or(l["service.istio.io/canonical-revision"], l["app.kubernetes.io/version"], l["version"], "latest")
	return name, revision
}
