package server

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
)

// The shapes of these pages are those of Istio's, as far as tools read them: Kiali's list of services, for one.

// configz lists configuration objects as Kubernetes has them. Secrets are without their values.
func (s *Server) configz(w http.ResponseWriter, _ *http.Request) {
	out := []json.RawMessage{}
	for _, o := range s.objects("", "", "").Items {
		if len(o.Raw) > 0 {
			out = append(out, o.Raw)
		}
	}
	writeJSON(w, http.StatusOK, out)
}

// registryService is a service as Istio's registry shows it. Words without a tag are Istio's own spelling.
type registryService struct {
	Attributes struct {
		ServiceRegistry string // Kubernetes or External
		Name, Namespace string
		Labels          map[string]string `json:",omitempty"`
		LabelSelectors  map[string]string `json:",omitempty"`
		ExportTo        map[string]any    `json:",omitempty"`
	}
	Ports          []registryPort `json:"ports"`
	CreationTime   time.Time      `json:"creationTime"`
	Hostname       string         `json:"hostname"`
	ClusterVIPs    map[string]any `json:"clusterVIPs,omitempty"`
	DefaultAddress string         `json:"defaultAddress,omitempty"`
	Resolution     int            // Istio's: 0 by its endpoints, 1 and 3 by DNS, 2 passthrough
	MeshExternal   bool
}

type registryPort struct {
	Name     string `json:"name,omitempty"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
}

func (s *Server) registryz(w http.ResponseWriter, _ *http.Request) {
	out := []registryService{}
	world := s.world()
	if world == nil {
		writeJSON(w, http.StatusOK, out)
		return
	}
	names := s.names.table().Names
	for _, x := range world.Services() {
		out = append(out, s.registryService(x, names[x.Host]))
	}
	writeJSON(w, http.StatusOK, out) // sorted by host and namespace
}

func (s *Server) registryService(x *snapshot.Service, addresses []string) registryService {
	v := registryService{Hostname: x.Host, CreationTime: x.Created, MeshExternal: x.External, Ports: []registryPort{}}
	v.Attributes.ServiceRegistry = "Kubernetes"
	if x.Entry {
		v.Attributes.ServiceRegistry = "External"
	}
	v.Attributes.Name, v.Attributes.Namespace, v.Attributes.Labels, v.Attributes.LabelSelectors = x.Name, x.Namespace, x.Labels, x.Selector
	for _, to := range x.ExportTo {
		if v.Attributes.ExportTo == nil {
			v.Attributes.ExportTo = map[string]any{}
		}
		v.Attributes.ExportTo[to] = struct{}{}
	}
	for _, p := range x.Ports {
		v.Ports = append(v.Ports, registryPort{p.Name, p.Number, string(p.Protocol)})
	}
	if len(addresses) > 0 && !x.Headless {
		v.DefaultAddress = addresses[0]
		v.ClusterVIPs = map[string]any{"Addresses": map[string][]string{s.set.Mesh.ClusterID: addresses}}
	}
	switch {
	case x.Resolution == model.ResolveDNS:
		v.Resolution = 1
	case x.Resolution == model.ResolveDNSRoundRobin:
		v.Resolution = 3
	case x.Headless || x.Resolution == model.ResolveNone:
		v.Resolution = 2
	}
	return v
}

// shardEndpoint is an endpoint as Istio's index of endpoints shows it.
type shardEndpoint struct {
	Labels          map[string]string `json:",omitempty"`
	Addresses       []string
	ServicePortName string
	ServiceAccount  string `json:",omitempty"` // a SPIFFE ID
	Network         string `json:",omitempty"`
	Locality        struct{ Label, ClusterID string }
	EndpointPort    uint16
	LbWeight        uint32
	TLSMode         string // istio or disabled
	Namespace       string
	WorkloadName    string `json:",omitempty"`
	NodeName        string `json:",omitempty"`
	HealthStatus    int    // Istio's: 1 healthy, 3 draining
}

type shards struct {
	Shards map[string][]shardEndpoint // by registry and cluster
}

// endpointz lists endpoints by host, namespace and cluster.
func (s *Server) endpointz(w http.ResponseWriter, _ *http.Request) {
	out := map[string]map[string]shards{}
	world := s.world()
	if world == nil {
		writeJSON(w, http.StatusOK, out)
		return
	}
	cluster := s.set.Mesh.ClusterID
	for _, x := range world.Services() {
		eps, list := world.Endpoints(x.Key), []shardEndpoint{}
		for _, p := range x.Ports {
			for _, e := range eps.Of(p.Number) {
				list = append(list, s.shardEndpoint(x.Namespace, p.Name, &e))
			}
		}
		slices.SortStableFunc(list, func(a, b shardEndpoint) int { return strings.Compare(a.Addresses[0], b.Addresses[0]) })
		if out[x.Host] == nil {
			out[x.Host] = map[string]shards{}
		}
		out[x.Host][x.Namespace] = shards{map[string][]shardEndpoint{"Kubernetes/" + cluster: list}}
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) shardEndpoint(ns, port string, e *snapshot.Endpoint) shardEndpoint {
	v := shardEndpoint{Labels: e.Labels, Addresses: []string{e.Hostname}, ServicePortName: port, Network: e.Network, EndpointPort: e.Port,
		LbWeight: e.Weight, TLSMode: "disabled", Namespace: ns, HealthStatus: 1}
	v.Locality.Label, v.Locality.ClusterID = e.Locality, s.set.Mesh.ClusterID
	if e.Addr.IsValid() {
		v.Addresses[0] = e.Addr.String()
	}
	if e.MTLS {
		v.TLSMode = "istio"
	}
	if e.Draining {
		v.HealthStatus = 3
	}
	if x := e.Workload; x != nil {
		v.Namespace, v.WorkloadName, v.NodeName = x.Namespace, x.WorkloadName, x.Node
		v.ServiceAccount = "spiffe://" + s.set.Mesh.TrustDomain + "/ns/" + x.Namespace + "/sa/" + x.ServiceAccount
	}
	return v
}
