package gatewayapi

import (
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// gatewayStatus writes the status of a Gateway and of its sets.
func (s *state) gatewayStatus(g *gateway) {
	st := &gw.GatewayStatus{Listeners: []gw.ListenerStatus{}}
	programmed, addresses := s.programmed(g)
	st.Addresses = addresses
	accepted, message := gw.GatewayReasonAccepted, "the Gateway is accepted"
	if slices.ContainsFunc(g.listeners, func(l *listener) bool { return l.set == nil && l.accepted.bad }) {
		accepted, message = gw.GatewayReasonListenersNotValid, "some of its listeners are not accepted, see their conditions"
	}
	resolved := g.clientCert
	if !resolved.bad && slices.ContainsFunc(g.listeners, func(l *listener) bool { return l.set == nil && l.resolved.bad }) {
		resolved = no(gw.GatewayReasonListenersNotResolved, "references of some of its listeners are not resolved, see their conditions")
	}
	st.Conditions = []metav1.Condition{
		condition(gw.GatewayConditionAccepted, g.problem, accepted, message, g.Generation),
		condition(gw.GatewayConditionProgrammed, programmed, gw.GatewayReasonProgrammed, "the Gateway serves", g.Generation),
		condition(gw.GatewayConditionResolvedRefs, resolved, gw.GatewayReasonResolvedRefs, "all references are resolved", g.Generation),
	}
	if insecure(g) {
		st.Conditions = append(st.Conditions, condition(gw.GatewayConditionInsecureFrontendValidationMode, verdict{}, gw.GatewayReasonConfigurationChanged,
			"clients are also served without a certificate that verifies (AllowInsecureFallback)", g.Generation))
	}
	sets := int32(0)
	for _, x := range g.sets {
		if !x.problem.bad {
			sets++
		}
		s.setStatus(x, programmed)
	}
	st.AttachedListenerSets = &sets
	for _, l := range g.listeners {
		if l.set == nil {
			st.Listeners = append(st.Listeners, gw.ListenerStatus{Name: gw.SectionName(l.name), SupportedKinds: l.supportedKinds(),
				AttachedRoutes: int32(l.routes), Conditions: l.conditions(g.Generation, programmed)})
		}
	}
	s.out.Statuses[keyOf(model.KindK8sGateway, g)] = &Status{Gateway: st}
}

func insecure(g *gateway) bool {
	t := g.Spec.TLS
	if t == nil || t.Frontend == nil {
		return false
	}
	is := func(c *gw.TLSConfig) bool {
		return c.Validation != nil && c.Validation.Mode == gw.AllowInsecureFallback
	}
	return is(&t.Frontend.Default) || slices.ContainsFunc(t.Frontend.PerPort, func(p gw.TLSPortConfig) bool { return is(&p.TLS) })
}

// programmed tells whether the Gateway serves, and where.
func (s *state) programmed(g *gateway) (verdict, []gw.GatewayStatusAddress) {
	var have []string
	problem := verdict{}
	switch {
	case g.problem.bad:
		problem = no(gw.GatewayReasonInvalid, "the Gateway is not accepted: "+g.problem.message)
	case len(s.in.Settings.Selector) > 0:
		have = s.in.Settings.Addresses
	case g.service != nil:
		have = []string{g.service.Host}
	default:
		have, problem = s.deployed(g)
	}
	var out []gw.GatewayStatusAddress
	for _, a := range have {
		typ := gw.IPAddressType
		if _, err := netip.ParseAddr(a); err != nil {
			typ = gw.HostnameAddressType
		}
		out = append(out, gw.GatewayStatusAddress{Type: &typ, Value: a})
	}
	return problem, out
}

// deployed is the state of the Gateway's own deployment.
func (s *state) deployed(g *gateway) ([]string, verdict) {
	infra, ok := s.in.Infrastructure[keyOf(model.KindK8sGateway, g)]
	switch {
	case ok && infra.Problem != "":
		return infra.Addresses, no(gw.GatewayReasonNoResources, infra.Problem)
	case !ok:
		return nil, no(gw.GatewayReasonPending, "waiting for the gateway to be deployed")
	}
	for _, a := range g.Spec.Addresses {
		if a.Value != "" && !slices.Contains(infra.Addresses, a.Value) {
			return infra.Addresses, no(gw.GatewayReasonAddressNotUsable, "the gateway's Service has not got the address "+a.Value)
		}
	}
	if len(infra.Addresses) == 0 {
		return nil, no(gw.GatewayReasonAddressNotAssigned, "the gateway's Service has no address yet")
	}
	if !infra.Ready {
		return infra.Addresses, no(gw.GatewayReasonNoResources, "no pod of the gateway is ready")
	}
	return infra.Addresses, verdict{}
}

func (s *state) setStatus(x *listenerSet, programmed verdict) {
	st := &gw.ListenerSetStatus{}
	p := x.problem
	if !p.bad && programmed.bad {
		p = no(gw.ListenerSetReasonPending, "the Gateway is not programmed: "+programmed.message)
	}
	accepted, message := gw.ListenerSetReasonAccepted, "the ListenerSet is accepted"
	if slices.ContainsFunc(x.listeners, func(l *listener) bool { return l.accepted.bad }) {
		accepted, message = gw.ListenerSetReasonListenersNotValid, "some of its listeners are not accepted, see their conditions"
	}
	st.Conditions = []metav1.Condition{
		condition(gw.ListenerSetConditionAccepted, x.problem, accepted, message, x.Generation),
		condition(gw.ListenerSetConditionProgrammed, p, gw.ListenerSetReasonProgrammed, "the listeners serve", x.Generation),
	}
	for _, l := range x.listeners {
		st.Listeners = append(st.Listeners, gw.ListenerEntryStatus{Name: gw.SectionName(l.name), SupportedKinds: l.supportedKinds(),
			AttachedRoutes: int32(l.routes), Conditions: l.conditions(x.Generation, programmed)})
	}
	s.out.Statuses[keyOf(model.KindListenerSet, x)] = &Status{ListenerSet: st}
}

func (l *listener) supportedKinds() []gw.RouteGroupKind {
	group := gw.Group(gw.GroupName)
	out := []gw.RouteGroupKind{}
	for _, k := range l.kinds {
		out = append(out, gw.RouteGroupKind{Group: &group, Kind: gw.Kind(k)})
	}
	return out
}

// conditions are those of a listener; programmed is the Gateway's.
func (l *listener) conditions(generation int64, programmed verdict) []metav1.Condition {
	p := verdict{}
	switch {
	case l.conflict.bad:
		p = l.conflict
	case l.accepted.bad:
		p = no(gw.ListenerReasonInvalid, "the listener is not accepted: "+l.accepted.message)
	case !l.serves:
		p = no(gw.ListenerReasonInvalid, "the listener does not serve: "+l.resolved.message)
	case programmed.bad:
		p = no(gw.ListenerReasonPending, "the Gateway is not programmed: "+programmed.message)
	}
	conflict := condition(gw.ListenerConditionConflicted, verdict{true, string(gw.ListenerReasonNoConflicts), "no other listener is in its way"}, "", "", generation)
	if l.conflict.bad {
		conflict = condition(gw.ListenerConditionConflicted, verdict{}, gw.ListenerConditionReason(l.conflict.reason), l.conflict.message, generation)
	}
	out := []metav1.Condition{
		condition(gw.ListenerConditionAccepted, l.accepted, gw.ListenerReasonAccepted, "the listener is accepted", generation),
		conflict,
		condition(gw.ListenerConditionProgrammed, p, gw.ListenerReasonProgrammed, "the listener serves", generation),
		condition(gw.ListenerConditionResolvedRefs, l.resolved, gw.ListenerReasonResolvedRefs, "all references are resolved", generation),
	}
	if l.overlap != "" {
		out = append(out, condition(gw.ListenerConditionOverlappingTLSConfig, verdict{}, gw.ListenerReasonOverlappingHostnames, l.overlap, generation))
	}
	return out
}

// routeStatus writes what became of a route at each parent of ours.
func (s *state) routeStatus(r *route) {
	st := &gw.RouteStatus{Parents: []gw.RouteParentStatus{}}
	for _, p := range r.parents {
		resolved := r.resolved
		if p.ofMesh {
			resolved = r.mesh.resolved
		}
		conds := []metav1.Condition{
			condition(gw.RouteConditionAccepted, p.accepted, gw.RouteReasonAccepted, "the route is accepted", r.generation()),
			condition(gw.RouteConditionResolvedRefs, resolved, gw.RouteReasonResolvedRefs, "all references are resolved", r.generation()),
		}
		if r.partly.bad && !p.accepted.bad {
			c := condition(gw.RouteConditionPartiallyInvalid, verdict{}, gw.RouteConditionReason(r.partly.reason), r.partly.message, r.generation())
			conds = append(conds, c)
		}
		st.Parents = append(st.Parents, gw.RouteParentStatus{ParentRef: p.ref, ControllerName: gw.GatewayController(p.controller), Conditions: conds})
	}
	slices.SortStableFunc(st.Parents, func(a, b gw.RouteParentStatus) int {
		return strings.Compare(parentText(&a.ParentRef), parentText(&b.ParentRef))
	})
	s.out.Statuses[r.key] = &Status{Route: st}
}
