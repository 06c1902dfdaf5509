package gatewayapi

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// route is a route of any kind, with what does not depend on its parents.
type route struct {
	metav1.Object
	kind     model.Kind
	key      model.Key
	refs     []gw.ParentReference
	hosts    []string // none: all
	rules    []*rule
	l4       []model.Destination
	services []nn // that its backendRefs lead to

	free bool   // reads references as the mesh does, without ReferenceGrants
	mesh *route // the same, as it is in the mesh; nil if no parent is a Service

	problem  verdict // Accepted, wherever it is attached
	resolved verdict
	partly   verdict // PartiallyInvalid
	parents  []*parent
}

func (r *route) generation() int64 { return r.GetGeneration() }

func (r *route) from() referrer { return referrer{string(r.kind), r.GetNamespace(), r.free} }

// parent is one parentRef of ours.
type parent struct {
	ref        gw.ParentReference
	controller string
	accepted   verdict
	gateway    *gateway // Gateway or ListenerSet
	ofMesh     bool
	service    *model.Service
	listeners  []*listener
}

// attachment is a route at a listener, for some hosts.
type attachment struct {
	route *route
	hosts []string // "" all
}

func parentText(p *gw.ParentReference) string {
	return fmt.Sprint(or(p.Group, gw.GroupName), "/", or(p.Kind, "Gateway"), "/", or(p.Namespace, ""), "/", p.Name, "/", or(p.SectionName, ""), "/", or(p.Port, 0))
}

// readRoutes reads all routes, oldest first.
func (s *state) readRoutes() []*route {
	var out []*route
	add := func(kind model.Kind, o metav1.Object, spec *gw.CommonRouteSpec, hosts []gw.Hostname, fill func(*route)) {
		r := &route{Object: o, kind: kind, key: keyOf(kind, o), refs: spec.ParentRefs}
		for _, h := range hosts {
			r.hosts = append(r.hosts, string(h))
		}
		if slices.ContainsFunc(spec.ParentRefs, func(p gw.ParentReference) bool { return or(p.Kind, "Gateway") == "Service" }) {
			m := *r
			m.free = true
			r.mesh = &m
			fill(r.mesh)
		}
		fill(r)
		out = append(out, r)
	}
	for _, o := range s.in.HTTPRoutes {
		add(model.KindHTTPRoute, o, &o.Spec.CommonRouteSpec, o.Spec.Hostnames, func(r *route) { s.httpRules(r, o) })
	}
	for _, o := range s.in.GRPCRoutes {
		add(model.KindGRPCRoute, o, &o.Spec.CommonRouteSpec, o.Spec.Hostnames, func(r *route) { s.grpcRules(r, o) })
	}
	for _, o := range s.in.TLSRoutes {
		add(model.KindTLSRoute, o, &o.Spec.CommonRouteSpec, o.Spec.Hostnames, func(r *route) {
			for _, x := range o.Spec.Rules {
				s.l4Rule(r, o, x.BackendRefs)
			}
		})
	}
	for _, o := range s.in.TCPRoutes {
		add(model.KindTCPRoute, o, &o.Spec.CommonRouteSpec, nil, func(r *route) {
			for _, x := range o.Spec.Rules {
				s.l4Rule(r, o, x.BackendRefs)
			}
		})
	}
	slices.SortFunc(out, func(a, b *route) int {
		return cmp.Or(olderObject(a, b), strings.Compare(string(a.kind), string(b.kind)))
	})
	return out
}

// invalid reads what convert says about the object: what concerns a rule is of the rule, anything else of the whole route.
func (r *route) invalid(value any) map[int]string {
	out := map[int]string{}
	for _, d := range convert.Check(r.key, value) {
		switch {
		case strings.HasPrefix(d.Field, "spec.parentRefs"):
			continue // a parent that is not ours is no fault
		case strings.HasPrefix(d.Field, "spec.rules["):
			digits, _, _ := strings.Cut(strings.TrimPrefix(d.Field, "spec.rules["), "]")
			if i, err := strconv.Atoi(digits); err == nil && out[i] == "" {
				out[i] = d.Field + ": " + d.Message
			}
		case !r.problem.bad:
			r.problem = no(gw.RouteReasonUnsupportedValue, d.Field+": "+d.Message)
		}
	}
	return out
}

// faulty notes rules that cannot be followed: they answer 500.
func (r *route) faulty(bad map[int]string, rules int) {
	if len(bad) == 0 {
		return
	}
	var says []string
	for i := range rules {
		if bad[i] != "" {
			says = append(says, bad[i])
		}
	}
	message := strings.Join(says, "; ")
	if len(bad) == rules {
		if !r.problem.bad {
			r.problem = no(gw.RouteReasonUnsupportedValue, message)
		}
		return
	}
	r.partly = no(gw.RouteReasonUnsupportedValue, "requests that these rules take are answered 500: "+message)
}

// destination resolves a backendRef and notes the first fault for ResolvedRefs.
func (s *state) destination(r *route, ref *gw.BackendObjectReference) model.Destination {
	d, v := s.backend(r.from(), ref)
	if v.bad && !r.resolved.bad {
		r.resolved = v
	}
	if !v.bad && or(ref.Kind, "Service") == "Service" {
		r.services = append(r.services, nn{namespaceOr(ref.Namespace, r.GetNamespace()), string(ref.Name)})
	}
	return d
}

// l4Rule reads the only rule of a TLSRoute or TCPRoute. At layer 4 the share of a backend that is not resolved has its connections closed.
func (s *state) l4Rule(r *route, value any, refs []gw.BackendRef) {
	for _, says := range r.invalid(value) {
		if !r.problem.bad {
			r.problem = no(gw.RouteReasonUnsupportedValue, says)
		}
	}
	for i := range refs {
		d := s.destination(r, &refs[i].BackendObjectReference)
		if d.Weight = uint32(max(or(refs[i].Weight, 1), 0)); d.Weight > 0 {
			r.l4 = append(r.l4, d)
		}
	}
	if len(r.l4) == 0 {
		r.l4 = []model.Destination{{Host: unresolvedHost, Weight: 1, Unresolved: true}}
	}
}
