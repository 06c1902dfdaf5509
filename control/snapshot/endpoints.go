package snapshot

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"weft.mesh/weft/model"
)

// LabelTLSMode on a ServiceEntry's endpoint says that it accepts mTLS ("istio").
const LabelTLSMode = "security.istio.io/tlsMode"

// Endpoint is one address of a service port.
type Endpoint struct {
	Addr     netip.Addr // invalid: Hostname
	Hostname string
	Port     uint16
	Weight   uint32 // at least 1
	Labels   map[string]string
	MTLS     bool // accepts mTLS
	Draining bool // finishes what it has, takes nothing new
	Locality string
	Network  string
	// Workload behind the address; nil for one written into a ServiceEntry.
	Workload *model.Workload
}

// Endpoints are the addresses of a service, by service port number.
type Endpoints struct {
	Key    ServiceKey
	ByPort map[uint16][]Endpoint
	// Spread tells that they are in more than one locality.
	Spread bool
}

// Of returns the endpoints of a port, sorted by address.
func (e *Endpoints) Of(port uint16) []Endpoint {
	if e == nil {
		return nil
	}
	return e.ByPort[port]
}

// MTLS tells whether every endpoint accepts mTLS (also if there is none).
func (e *Endpoints) MTLS() bool {
	for _, eps := range e.byPort() {
		for i := range eps {
			if !eps[i].MTLS {
				return false
			}
		}
	}
	return true
}

// Empty tells whether there is no endpoint.
func (e *Endpoints) Empty() bool {
	for _, eps := range e.byPort() {
		if len(eps) > 0 {
			return false
		}
	}
	return true
}

// Identities are the SPIFFE IDs that endpoints of a service may have, sorted,
// and the further subject alternative names of a ServiceEntry.
type Identities struct {
	IDs  []string
	SANs []string
}

// Endpoints returns the endpoints of a service; never nil for one that exists.
func (w *World) Endpoints(k ServiceKey) *Endpoints { return w.endpoints.at(k) }

// EndpointsSince visits the services whose endpoints differ from those of another World of
// the line, before or after this one. It takes time for what differs only.
func (w *World) EndpointsSince(old *World) iter.Seq[ServiceKey] {
	return since(w.endpoints, old.endpoints)
}

// Identities returns who may serve a service; never nil for one that exists.
// Pods that are not ready and Deployments without pods count too, so that
// scaling does not change what clients verify.
func (w *World) Identities(k ServiceKey) *Identities { return w.identities.at(k) }

// computeEndpoints lists the addresses of all ports of a service.
func (b *builder) computeEndpoints(s *Service) *Endpoints {
	e := &Endpoints{Key: s.Key, ByPort: make(map[uint16][]Endpoint, len(s.Ports))}
	for m := range s.parts {
		sliced := b.fromSlices(m)
		var selected []selectedWorkload
		if len(m.Selector) > 0 && !sliced {
			for _, x := range selectWorkloads(b.byLabel.at, s.Namespace, m.Selector) {
				selected = append(selected, selectedWorkload{x, b.accepts(x)})
			}
		}
		for _, sp := range s.Ports {
			p, ok := portNumbered(m.Ports, sp.Number)
			if !ok {
				continue
			}
			eps := e.ByPort[p.Number]
			if sliced {
				eps = b.slicedEndpoints(eps, s.Key, p)
			}
			for _, x := range selected {
				eps = appendWorkload(eps, x, p)
			}
			for i := range m.Endpoints {
				eps = appendEntry(eps, m, &m.Endpoints[i], p)
			}
			e.ByPort[p.Number] = eps
		}
	}
	for n, eps := range e.ByPort {
		e.ByPort[n] = sortEndpoints(eps)
	}
	e.Spread = e.spread()
	return e
}

func (e *Endpoints) spread() bool {
	var first *Endpoint
	for _, eps := range e.ByPort {
		for i := range eps {
			if first == nil {
				first = &eps[i]
			} else if eps[i].Locality != first.Locality {
				return true
			}
		}
	}
	return false
}

// selectedWorkload is a workload behind a service, and what it accepts.
type selectedWorkload struct {
	*model.Workload
	accepts MTLS
}

func portNumbered(ports []model.Port, n uint16) (model.Port, bool) {
	for _, p := range ports {
		if p.Number == n {
			return p, true
		}
	}
	return model.Port{}, false
}

// appendWorkload adds the addresses of a selected workload: one that is not
// ready is left out unless it is terminating, which only drains.
func appendWorkload(eps []Endpoint, x selectedWorkload, p model.Port) []Endpoint {
	if !x.Ready && !x.Terminating {
		return eps
	}
	port, ok := TargetPort(x.Workload, p)
	if !ok {
		return eps
	}
	base := Endpoint{
		Port: port, Weight: max(x.Weight, 1), Labels: x.Labels, MTLS: x.HasSidecar && x.accepts.Of(port) != model.MTLSDisable,
		Draining: x.Terminating, Locality: x.Locality, Workload: x.Workload,
	}
	for _, a := range x.Addresses {
		e := base
		e.Addr = a.Unmap()
		eps = append(eps, e)
	}
	if len(x.Addresses) == 0 && x.Hostname != "" {
		e := base
		e.Hostname = x.Hostname
		eps = append(eps, e)
	}
	return eps
}

// TargetPort is the port of a workload that a service port leads to; false if
// the workload has no port of that name.
func TargetPort(x *model.Workload, p model.Port) (uint16, bool) {
	if x.Entry {
		if n, ok := x.Ports[p.Name]; ok && n != 0 {
			return n, true
		}
	}
	if p.TargetName != "" {
		n, ok := x.Ports[p.TargetName]
		return n, ok && n != 0
	}
	return cmp.Or(p.TargetPort, p.Number), true
}

func appendEntry(eps []Endpoint, m *model.Service, x *model.Endpoint, p model.Port) []Endpoint {
	port := x.Ports[p.Name]
	if port == 0 {
		port = cmp.Or(p.TargetPort, p.Number)
	}
	e := Endpoint{
		Port: port, Weight: max(x.Weight, 1), Labels: x.Labels,
		MTLS: x.Labels[LabelTLSMode] == "istio", Locality: x.Locality, Network: x.Network,
	}
	if a, err := netip.ParseAddr(x.Address); err == nil {
		e.Addr = a.Unmap()
	} else {
		e.Hostname = x.Address
	}
	return append(eps, e)
}

// sortEndpoints orders by address and drops repeated ones.
func sortEndpoints(eps []Endpoint) []Endpoint {
	slices.SortStableFunc(eps, func(a, b Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.Port, b.Port))
	})
	return slices.CompactFunc(eps, func(a, b Endpoint) bool {
		return a.Addr == b.Addr && a.Hostname == b.Hostname && a.Port == b.Port
	})
}

// equalEndpoints compares what others can see; the workload's pointer alone is
// no difference.
func equalEndpoints(a, b *Endpoints) bool {
	if a == nil || b == nil || len(a.ByPort) != len(b.ByPort) {
		return a == b
	}
	for n, x := range a.ByPort {
		if !slices.EqualFunc(x, b.ByPort[n], equalEndpoint) {
			return false
		}
	}
	return true
}

func equalEndpoint(a, b Endpoint) bool {
	return a.Addr == b.Addr && a.Hostname == b.Hostname && a.Port == b.Port && a.Weight == b.Weight &&
		a.MTLS == b.MTLS && a.Draining == b.Draining && a.Locality == b.Locality && a.Network == b.Network &&
		maps.Equal(a.Labels, b.Labels) && sameOwner(a.Workload, b.Workload)
}

func sameOwner(a, b *model.Workload) bool {
	if a == nil || b == nil || a == b {
		return a == b
	}
	return a.Key == b.Key && a.WorkloadName == b.WorkloadName && a.ServiceAccount == b.ServiceAccount
}

// computeIdentities collects the accounts behind a service.
func (b *builder) computeIdentities(s *Service) *Identities {
	ids, sans := map[string]bool{}, map[string]bool{}
	add := func(ns, sa string) {
		ids["spiffe://"+b.next.mesh.TrustDomain+"/ns/"+ns+"/sa/"+cmp.Or(sa, "default")] = true
	}
	for m := range s.parts {
		for _, n := range m.SubjectAltNames {
			sans[n] = true
		}
		for i := range m.Endpoints {
			if sa := m.Endpoints[i].ServiceAccount; sa != "" {
				add(s.Namespace, sa)
			}
		}
		if b.fromSlices(m) {
			b.slicedWorkloads(s.Key, func(x *model.Workload) { add(x.Namespace, x.ServiceAccount) })
		}
		if len(m.Selector) == 0 {
			continue
		}
		for _, x := range selectWorkloads(b.byLabel.at, s.Namespace, m.Selector) {
			add(x.Namespace, x.ServiceAccount)
		}
		k := sortedKeys(m.Selector)[0]
		for _, d := range b.deployments.at(labelKey{s.Namespace, k, m.Selector[k]}) {
			if Matches(m.Selector, d.PodLabels) {
				add(d.Namespace, d.ServiceAccount)
			}
		}
	}
	return &Identities{IDs: sortedKeys(ids), SANs: sortedKeys(sans)}
}

func equalIdentities(a, b *Identities) bool {
	return a != nil && b != nil && reflect.DeepEqual(a, b)
}
