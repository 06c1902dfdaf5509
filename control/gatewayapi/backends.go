package gatewayapi

import (
	"fmt"
	"slices"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// unresolvedHost is the host of a destination that cannot be resolved: a name that no service can have (RFC 6761, 6.4).
const unresolvedHost = "unresolved.invalid"

// backend finds the service port that a reference names. The verdict is for ResolvedRefs of the route.
func (s *state) backend(from referrer, r *gw.BackendObjectReference) (model.Destination, verdict) {
	group, kind, ns := string(or(r.Group, "")), string(or(r.Kind, "Service")), namespaceOr(r.Namespace, from.namespace)
	port := uint16(or(r.Port, 0))
	unresolved := model.Destination{Host: unresolvedHost, Port: port, Unresolved: true}
	var svc *model.Service
	switch {
	case group == "networking.istio.io" && kind == "Hostname":
		svc = s.hosts[string(r.Name)]
		if svc == nil {
			return unresolved, no(gw.RouteReasonBackendNotFound, fmt.Sprintf("no service has the host %s", r.Name))
		}
		if svc.Kind == model.KindService && !s.granted(from, toService, svc.Namespace, svc.Name) { // however it is written
			return unresolved, no(gw.RouteReasonRefNotPermitted, notGranted(toService, svc.Namespace, svc.Name, from))
		}
	case group == "" && kind == "Service":
		if !s.granted(from, toService, ns, string(r.Name)) {
			return unresolved, no(gw.RouteReasonRefNotPermitted, notGranted(toService, ns, string(r.Name), from))
		}
		svc = s.services[nn{ns, string(r.Name)}]
		if svc == nil {
			return unresolved, no(gw.RouteReasonBackendNotFound, fmt.Sprintf("Service %s/%s does not exist", ns, r.Name))
		}
	default:
		return unresolved, no(gw.RouteReasonInvalidKind, fmt.Sprintf("a backend cannot be a %s of group %q: refer to a Service", kind, group))
	}
	if port == 0 {
		return unresolved, no(gw.RouteReasonUnsupportedValue, fmt.Sprintf("the reference to %s %s/%s names no port", kind, ns, r.Name))
	}
	i := slices.IndexFunc(svc.Ports, func(p model.Port) bool { return p.Number == port })
	switch {
	case i < 0:
		return unresolved, no(gw.RouteReasonBackendNotFound, fmt.Sprintf("%s has no port %d", svc.Host, port))
	case svc.Ports[i].Protocol == model.ProtocolUDP:
		return unresolved, no(gw.RouteReasonUnsupportedProtocol, fmt.Sprintf("port %d of %s is UDP", port, svc.Host))
	}
	return model.Destination{Host: svc.Host, Port: port}, verdict{}
}
