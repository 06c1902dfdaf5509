package snapshot

import (
	"net/netip"
	"slices"
	"strings"

	"weft.mesh/weft/model"
)

// ServiceKey identifies a service: hosts are unique in a namespace only,
// because two namespaces may have a ServiceEntry for the same host.
type ServiceKey struct{ Host, Namespace string }

// Service is a host with ports as clients see it: a Kubernetes Service or
// ServiceEntry, with what further ServiceEntries of its namespace add to it.
type Service struct {
	*model.Service
	// Key is the host and the namespace.
	Key ServiceKey
	// Extra are ServiceEntries of the same host and namespace; they add
	// endpoints (and, to another ServiceEntry, ports). Oldest first.
	Extra []*model.Service
	// Ports of the service and of Extra; shadows the field of model.Service.
	Ports []model.Port
	// VIPs are the single addresses that clients connect to: given, or for a Service
	// allocated. Empty: headless, or a ServiceEntry without addresses.
	VIPs []netip.Addr
	// Auto is the address of a ServiceEntry without addresses, for clients that get
	// their names from the mesh ([NameTable].Auto): nobody else ever connects to it. May be invalid.
	Auto netip.Addr
	// Prefixes are address ranges of a ServiceEntry that are no single address.
	Prefixes []netip.Prefix
}

// Port returns the port with the number.
func (s *Service) Port(number uint16) (model.Port, bool) {
	for _, p := range s.Ports {
		if p.Number == number {
			return p, true
		}
	}
	return model.Port{}, false
}

// Wildcard tells whether the host begins with "*".
func (s *Service) Wildcard() bool { return strings.HasPrefix(s.Host, "*") }

// ShortName is the Kubernetes name of the service; empty for a host outside the mesh's domain.
func (s *Service) ShortName(domain string) string {
	if name, ok := strings.CutSuffix(s.Host, "."+s.Namespace+".svc."+domain); ok && !strings.Contains(name, ".") {
		return name
	}
	return ""
}

// VisibleTo tells whether clients of a namespace see an object of namespace
// own that is exported to exportTo (empty: everywhere; "." own; "~" none).
func VisibleTo(exportTo []string, own, namespace string) bool {
	if len(exportTo) == 0 {
		return true
	}
	for _, e := range exportTo {
		switch e {
		case "*":
			return true
		case ".":
			if own == namespace {
				return true
			}
		case namespace:
			return true
		}
	}
	return false
}

// mergeService makes one Service of all model services with one host and
// namespace. A Kubernetes Service is preferred, then the oldest.
func mergeService(key ServiceKey, all []*model.Service, vip func(*model.Service) []netip.Addr) *Service {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b *model.Service) int {
		if a.Entry != b.Entry {
			if b.Entry {
				return -1
			}
			return 1
		}
		return older(&a.Meta, &b.Meta)
	})
	s := &Service{Service: all[0], Key: key, Extra: all[1:], Ports: all[0].Ports}
	if s.Entry {
		for _, x := range s.Extra {
			for _, p := range x.Ports {
				if _, ok := s.Port(p.Number); !ok {
					s.Ports = append(slices.Clip(s.Ports), p)
				}
			}
		}
	}
	s.VIPs = vip(s.Service)
	for _, p := range s.Addresses {
		if !p.IsSingleIP() {
			s.Prefixes = append(s.Prefixes, p.Masked())
		}
	}
	return s
}

// preferred orders services of one host in several namespaces: Kubernetes
// Services first, then the oldest.
func preferred(a, b *Service) int {
	if a.Entry != b.Entry {
		if b.Entry {
			return -1
		}
		return 1
	}
	return older(&a.Meta, &b.Meta)
}

// Service returns the service that clients of a namespace reach by a host; nil
// if there is none that they see. Kubernetes Services win, then the
// namespace's own ServiceEntry, then the oldest.
func (w *World) Service(host, clientNamespace string) *Service {
	var found *Service
	for _, s := range w.hosts.at(host) {
		switch {
		case !VisibleTo(s.ExportTo, s.Namespace, clientNamespace):
		case !s.Entry:
			return s
		case found == nil, s.Namespace == clientNamespace:
			found = s
		}
	}
	return found
}

// ServiceByKey returns a service; nil if there is none.
func (w *World) ServiceByKey(k ServiceKey) *Service { return w.services.at(k) }

// ServicesOf returns the services of a namespace, sorted by host.
func (w *World) ServicesOf(namespace string) []*Service { return w.nsServices.at(namespace) }

// Services returns all services, sorted by host and namespace.
func (w *World) Services() []*Service {
	out := make([]*Service, 0, w.services.len())
	for _, s := range w.services.all() {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Service) int {
		if c := cmpString(a.Host, b.Host); c != 0 {
			return c
		}
		return cmpString(a.Namespace, b.Namespace)
	})
	return out
}

// Visible returns the services that clients of a namespace see, one for each
// host, sorted by host.
func (w *World) Visible(namespace string) []*Service {
	return w.derived.visible.of(namespace, func() []*Service {
		v := make([]*Service, 0, w.hosts.len())
		for host := range w.hosts.all() {
			if s := w.Service(host, namespace); s != nil {
				v = append(v, s)
			}
		}
		slices.SortFunc(v, func(a, b *Service) int { return cmpString(a.Host, b.Host) })
		return v
	})
}

// ServicesOfWorkload returns the services whose selectors match the workload,
// sorted by host.
func (w *World) ServicesOfWorkload(x *model.Workload) []*Service {
	return servicesSelecting(w.selectors.at, x.Namespace, x.Labels)
}

// ServicesSelecting is ServicesOfWorkload for labels alone.
func (w *World) ServicesSelecting(namespace string, labels map[string]string) []*Service {
	return servicesSelecting(w.selectors.at, namespace, labels)
}

func servicesSelecting(at func(labelKey) []*Service, namespace string, labels map[string]string) []*Service {
	var out []*Service
	for k, v := range labels {
		for _, s := range at(labelKey{namespace, k, v}) {
			if s.selects(labels) && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	slices.SortFunc(out, func(a, b *Service) int { return cmpString(a.Host, b.Host) })
	return out
}

func (s *Service) selects(labels map[string]string) bool {
	for m := range s.parts {
		if len(m.Selector) > 0 && Matches(m.Selector, labels) {
			return true
		}
	}
	return false
}

// parts visits the service and what adds to it.
func (s *Service) parts(yield func(*model.Service) bool) {
	if !yield(s.Service) {
		return
	}
	for _, x := range s.Extra {
		if !yield(x) {
			return
		}
	}
}

// selectorKeys is one label pair of each selector: the smallest, so that a
// lookup by any label of a workload finds the service.
func (s *Service) selectorKeys() []labelKey {
	var out []labelKey
	for m := range s.parts {
		if len(m.Selector) == 0 {
			continue
		}
		k := sortedKeys(m.Selector)[0]
		if lk := (labelKey{s.Namespace, k, m.Selector[k]}); !slices.Contains(out, lk) {
			out = append(out, lk)
		}
	}
	return out
}
