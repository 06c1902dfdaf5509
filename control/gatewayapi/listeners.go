package gatewayapi

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// gateway is a Gateway of a class that is served.
type gateway struct {
	*gw.Gateway
	controller string
	listeners  []*listener // its own, then those of its sets by age
	sets       []*listenerSet
	problem    verdict // Accepted
	clientCert verdict // ResolvedRefs, as far as the backend's client certificate is concerned
	credential string
	service    *model.Service // that was deployed by hand and that spec.addresses names
}

// listenerSet is a ListenerSet whose Gateway is served.
type listenerSet struct {
	*gw.ListenerSet
	gateway   *gateway
	problem   verdict // Accepted
	listeners []*listener
}

// listener is one listener of a Gateway or ListenerSet.
type listener struct {
	gateway  *gateway
	set      *listenerSet // nil: the Gateway's own
	name     string
	hostname string // "" all
	port     uint16
	protocol gw.ProtocolType
	tls      *gw.ListenerTLSConfig
	allowed  *gw.AllowedRoutes

	kinds    []string // of routes that may attach, sorted
	conflict verdict
	accepted verdict
	resolved verdict
	serves   bool // accepted, and what it needs to serve is there
	overlap  string
	server   *model.ServerTLS
	routes   int // attached

	http []*attachment // by HTTPRoutes and GRPCRoutes, oldest route first
	l4   []*attachment
}

// owner is where the listener is written.
func (l *listener) owner() metav1.Object {
	if l.set != nil {
		return l.set
	}
	return l.gateway
}

func (l *listener) from() referrer {
	if l.set != nil {
		return referrer{kind: "ListenerSet", namespace: l.set.Namespace}
	}
	return referrer{kind: "Gateway", namespace: l.gateway.Namespace}
}

// id is the name of the listener's model.Gateway. A "~" is in no object's name, so that nobody else's can be the same.
func (l *listener) id() string {
	if l.set != nil {
		return l.gateway.Name + "~" + l.set.Namespace + "~" + l.set.Name + "~" + l.name
	}
	return l.gateway.Name + "~" + l.name
}

func (s *state) readGateways() {
	for _, g := range sortedByAge(s.in.Gateways) {
		controller, ok := s.classes[string(g.Spec.GatewayClassName)]
		if !ok {
			continue
		}
		x := &gateway{Gateway: g, controller: controller}
		for i := range g.Spec.Listeners {
			l := &g.Spec.Listeners[i]
			x.listeners = append(x.listeners, &listener{gateway: x, name: string(l.Name), hostname: string(or(l.Hostname, "")), port: uint16(l.Port),
				protocol: l.Protocol, tls: l.TLS, allowed: l.AllowedRoutes})
		}
		s.gateways[nameOf(g)] = x
		s.order = append(s.order, x)
	}
}

// readListenerSets adds the listeners of sets to their Gateways, the older sets first.
func (s *state) readListenerSets() {
	for _, o := range sortedByAge(s.in.ListenerSets) {
		r := &o.Spec.ParentRef
		if or(r.Group, gw.GroupName) != gw.GroupName || or(r.Kind, "Gateway") != "Gateway" {
			continue
		}
		g := s.gateways[nn{namespaceOr(r.Namespace, o.Namespace), string(r.Name)}]
		if g == nil {
			continue
		}
		x := &listenerSet{ListenerSet: o, gateway: g}
		s.sets[nameOf(o)] = x
		g.sets = append(g.sets, x)
		if !s.allowsSet(g, o.Namespace) {
			x.problem = no(gw.ListenerSetReasonNotAllowed, fmt.Sprintf("Gateway %s allows no ListenerSet of namespace %s (spec.allowedListeners)", nameOf(g), o.Namespace))
		}
		for i := range o.Spec.Listeners {
			l := &o.Spec.Listeners[i]
			y := &listener{gateway: g, set: x, name: string(l.Name), hostname: string(or(l.Hostname, "")), port: uint16(l.Port),
				protocol: l.Protocol, tls: l.TLS, allowed: l.AllowedRoutes}
			x.listeners = append(x.listeners, y)
			if !x.problem.bad {
				g.listeners = append(g.listeners, y)
			}
		}
	}
}

func (s *state) allowsSet(g *gateway, ns string) bool {
	a := g.Spec.AllowedListeners
	if a == nil || a.Namespaces == nil {
		return false
	}
	return s.fromNamespace(or(a.Namespaces.From, gw.NamespacesFromNone), a.Namespaces.Selector, g.Namespace, ns)
}

// fromNamespace tells whether namespace ns is one that own allows.
func (s *state) fromNamespace(from gw.FromNamespaces, selector *metav1.LabelSelector, own, ns string) bool {
	switch from {
	case gw.NamespacesFromAll:
		return true
	case gw.NamespacesFromSame:
		return ns == own
	case gw.NamespacesFromSelector:
		if selector == nil {
			return false
		}
		sel, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			return false
		}
		set := labels.Set{"kubernetes.io/metadata.name": ns}
		for k, v := range s.in.Namespaces[ns] {
			set[k] = v
		}
		return sel.Matches(set)
	}
	return false
}

// judge finds what is wrong with a Gateway and its listeners.
func (s *state) judge(g *gateway) {
	s.judgeGateway(g)
	s.conflicts(g)
	for _, l := range g.listeners {
		s.judgeListener(l)
	}
	for _, x := range g.sets {
		switch {
		case x.problem.bad:
			for _, l := range x.listeners {
				l.kinds = []string{}
				l.accepted = no(gw.ListenerReasonPending, x.problem.message)
			}
		case g.problem.bad && g.problem.reason != string(gw.GatewayReasonListenersNotValid):
			x.problem = no(gw.ListenerSetReasonParentNotAccepted, "Gateway "+nameOf(g).String()+" is not accepted: "+g.problem.message)
		case !slices.ContainsFunc(x.listeners, func(l *listener) bool { return l.serves && !l.accepted.bad }):
			x.problem = no(gw.ListenerSetReasonListenersNotValid, "none of its listeners can serve, see their conditions")
		}
	}
	if !g.problem.bad && !slices.ContainsFunc(g.listeners, func(l *listener) bool { return !l.accepted.bad }) {
		g.problem = no(gw.GatewayReasonListenersNotValid, "none of its listeners is accepted")
	}
	s.overlaps(g)
}

func (s *state) judgeGateway(g *gateway) {
	for _, a := range g.Spec.Addresses {
		if t := or(a.Type, gw.IPAddressType); t != gw.IPAddressType && t != gw.HostnameAddressType {
			g.problem = no(gw.GatewayReasonUnsupportedAddress, fmt.Sprintf("an address of type %s is not supported: use IPAddress or Hostname", t))
		} else if svc := s.hosts[a.Value]; t == gw.HostnameAddressType && svc != nil && svc.Kind == model.KindService && len(svc.Selector) > 0 {
			g.service = svc
		}
	}
	if in := g.Spec.Infrastructure; in != nil && in.ParametersRef != nil {
		p := in.ParametersRef
		says := s.in.Infrastructure[keyOf(model.KindK8sGateway, g)].InvalidParameters // who deploys reads them
		if p.Group != "" || p.Kind != "ConfigMap" {
			says = fmt.Sprintf("a %s of group %q cannot be used, only a ConfigMap", p.Kind, p.Group)
		}
		if says != "" {
			g.problem = no(gw.GatewayReasonInvalidParameters, "infrastructure.parametersRef: "+says)
		}
	}
	if t := g.Spec.TLS; t != nil && t.Backend != nil && t.Backend.ClientCertificateRef != nil {
		r := t.Backend.ClientCertificateRef
		sec, v := s.secret(referrer{kind: "Gateway", namespace: g.Namespace}, r, gw.GatewayReasonInvalidClientCertificateRef, gw.GatewayReasonRefNotPermitted)
		g.clientCert = v
		if sec != nil {
			g.credential = model.Credential(sec.Namespace, sec.Name)
		}
	}
}

// protocols that can share a port.
func family(p gw.ProtocolType) string {
	switch p {
	case gw.HTTPSProtocolType, gw.TLSProtocolType:
		return "TLS"
	}
	return string(p)
}

// conflicts lets the first of listeners have a port's protocol and hostname: those of the Gateway in their order, then those of its sets by age.
func (s *state) conflicts(g *gateway) {
	ports, places := map[uint16]*listener{}, map[string]*listener{}
	for _, l := range g.listeners {
		if first := ports[l.port]; first != nil && family(first.protocol) != family(l.protocol) {
			l.conflict = no(gw.ListenerReasonProtocolConflict, fmt.Sprintf("port %d is of protocol %s: listener %s was first", l.port, first.protocol, first.name))
			continue
		}
		k := fmt.Sprint(l.port, " ", l.hostname)
		if first := places[k]; first != nil {
			l.conflict = no(gw.ListenerReasonHostnameConflict, fmt.Sprintf("port %d and hostname %q are served by listener %s, which was first", l.port, anyHost(l.hostname), first.name))
			continue
		}
		if ports[l.port] == nil {
			ports[l.port] = l
		}
		places[k] = l
	}
}

// supported are the kinds of routes by protocol, sorted.
func supported(p gw.ProtocolType) []string {
	switch p {
	case gw.HTTPProtocolType, gw.HTTPSProtocolType:
		return []string{"GRPCRoute", "HTTPRoute"}
	case gw.TLSProtocolType:
		return []string{"TLSRoute"}
	case gw.TCPProtocolType:
		return []string{"TCPRoute"}
	}
	return nil
}

func (s *state) judgeListener(l *listener) {
	all := supported(l.protocol)
	l.kinds = slices.Clone(all)
	if l.allowed != nil && len(l.allowed.Kinds) > 0 {
		l.kinds = l.kinds[:0]
		for _, k := range l.allowed.Kinds {
			if or(k.Group, gw.GroupName) == gw.GroupName && slices.Contains(all, string(k.Kind)) {
				if !slices.Contains(l.kinds, string(k.Kind)) {
					l.kinds = append(l.kinds, string(k.Kind))
				}
			} else {
				l.resolved = no(gw.ListenerReasonInvalidRouteKinds, fmt.Sprintf("allowedRoutes.kinds: a listener of protocol %s takes %s, not %s", l.protocol, strings.Join(all, " and "), k.Kind))
			}
		}
		slices.Sort(l.kinds)
	}
	switch {
	case len(all) == 0:
		l.kinds = []string{}
		l.accepted = no(gw.ListenerReasonUnsupportedProtocol, fmt.Sprintf("protocol %s is not supported: use HTTP, HTTPS, TLS or TCP", l.protocol))
		return
	case l.conflict.bad:
		l.accepted = l.conflict
		return
	case l.tls != nil && len(l.tls.Options) > 0:
		l.accepted = no(gw.ListenerReasonUnsupportedValue, "tls.options are not supported")
		return
	}
	l.serves = true
	if family(l.protocol) == "TLS" {
		s.judgeTLS(l)
	}
}

// judgeTLS resolves a listener's certificates and roots. Without them it serves nothing.
func (s *state) judgeTLS(l *listener) {
	l.server = &model.ServerTLS{Mode: model.TLSSimple}
	if l.tls == nil {
		l.serves = false
		l.resolved = no(gw.ListenerReasonInvalidCertificateRef, "tls is missing: name a Secret in tls.certificateRefs")
		return
	}
	if or(l.tls.Mode, gw.TLSModeTerminate) == gw.TLSModePassthrough {
		l.server.Mode = model.TLSPassthrough
		return
	}
	for i := range l.tls.CertificateRefs {
		sec, v := s.secret(l.from(), &l.tls.CertificateRefs[i], gw.ListenerReasonInvalidCertificateRef, gw.ListenerReasonRefNotPermitted)
		if v.bad && !l.resolved.bad {
			l.resolved = v
		}
		if sec != nil {
			l.server.Credentials = append(l.server.Credentials, model.Credential(sec.Namespace, sec.Name))
		}
	}
	if len(l.server.Credentials) == 0 {
		l.serves = false
		if !l.resolved.bad {
			l.resolved = no(gw.ListenerReasonInvalidCertificateRef, "tls.certificateRefs names no Secret")
		}
	}
	if v := clientValidation(l); v != nil {
		s.judgeRoots(l, v)
	}
}

// secret finds a Secret with a certificate and its key.
func (s *state) secret(from referrer, r *gw.SecretObjectReference, invalid, notPermitted any) (*model.Secret, verdict) {
	bad, denied := fmt.Sprint(invalid), fmt.Sprint(notPermitted)
	ns, name := namespaceOr(r.Namespace, from.namespace), string(r.Name)
	if or(r.Group, "") != "" || or(r.Kind, "Secret") != "Secret" {
		return nil, no(bad, fmt.Sprintf("a certificate is in a Secret, not in a %s of group %q", or(r.Kind, "Secret"), or(r.Group, "")))
	}
	if !s.granted(from, toSecret, ns, name) {
		return nil, no(denied, notGranted(toSecret, ns, name, from))
	}
	sec := s.secrets[nn{ns, name}]
	switch {
	case sec == nil:
		return nil, no(bad, fmt.Sprintf("Secret %s/%s does not exist", ns, name))
	case sec.Problem != "":
		return nil, no(bad, fmt.Sprintf("Secret %s/%s: %s", ns, name, sec.Problem))
	case len(sec.Cert) == 0 || len(sec.Key) == 0:
		return nil, no(bad, fmt.Sprintf("Secret %s/%s has no tls.crt and tls.key", ns, name))
	}
	return sec, verdict{}
}

// clientValidation is what the Gateway asks of clients at the listener's port.
func clientValidation(l *listener) *gw.FrontendTLSValidation {
	t := l.gateway.Spec.TLS
	if l.protocol != gw.HTTPSProtocolType || t == nil || t.Frontend == nil {
		return nil
	}
	for i := range t.Frontend.PerPort {
		if p := &t.Frontend.PerPort[i]; uint16(p.Port) == l.port {
			return p.TLS.Validation
		}
	}
	return t.Frontend.Default.Validation
}

func (s *state) judgeRoots(l *listener, v *gw.FrontendTLSValidation) {
	l.server.Mode = model.TLSMutual
	if v.Mode == gw.AllowInsecureFallback {
		l.server.Mode = model.TLSInsecureFallback
	}
	from := referrer{kind: "Gateway", namespace: l.gateway.Namespace}
	for _, r := range v.CACertificateRefs {
		pem, bad := s.roots(from, string(r.Group), string(r.Kind), namespaceOr(r.Namespace, from.namespace), string(r.Name),
			string(gw.ListenerReasonInvalidCACertificateRef), string(gw.ListenerReasonInvalidCACertificateKind), string(gw.ListenerReasonRefNotPermitted))
		if bad.bad && !l.resolved.bad {
			l.resolved = bad
		}
		l.server.CABundle = append(l.server.CABundle, pem...)
	}
	if len(l.server.CABundle) == 0 {
		l.serves = false
		l.accepted = no(gw.ListenerReasonNoValidCACertificate, "no roots to verify clients with: "+l.resolved.message)
	}
}

// roots finds the certificates of a ConfigMap or Secret.
func (s *state) roots(from referrer, group, kind, ns, name, invalid, invalidKind, denied string) ([]byte, verdict) {
	to := target{group, kind}
	if to != toConfigMap && to != toSecret {
		return nil, no(invalidKind, fmt.Sprintf("roots are in a ConfigMap or Secret, not in a %s of group %q", kind, group))
	}
	if !s.granted(from, to, ns, name) {
		return nil, no(denied, notGranted(to, ns, name, from))
	}
	var pem []byte
	problem := "does not exist"
	if to == toConfigMap {
		if m := s.configMaps[nn{ns, name}]; m != nil {
			pem, problem = m.CA, m.Problem
		}
	} else if m := s.secrets[nn{ns, name}]; m != nil {
		pem, problem = m.CA, m.Problem
		if problem == "" && len(m.CA) == 0 {
			problem = "has no ca.crt"
		}
	}
	if problem != "" {
		return nil, no(invalid, fmt.Sprintf("%s %s/%s: %s", kind, ns, name, problem))
	}
	if !strings.HasSuffix(string(pem), "\n") {
		pem = append(slices.Clip(pem), '\n')
	}
	return pem, verdict{}
}

// overlaps notes HTTPS listeners of a port whose hostnames overlap, so that clients may reuse a connection of one for the other.
func (s *state) overlaps(g *gateway) {
	for _, l := range g.listeners {
		for _, o := range g.listeners {
			if l == o || !l.serves || !o.serves || l.port != o.port || l.protocol != gw.HTTPSProtocolType || o.protocol != gw.HTTPSProtocolType {
				continue
			}
			if _, ok := intersect(l.hostname, o.hostname); ok && l.overlap == "" {
				l.overlap = fmt.Sprintf("its hostname overlaps with that of listener %s: a request for another listener's host is answered 421", o.name)
			}
		}
	}
}
