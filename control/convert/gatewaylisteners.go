package convert

import (
	"fmt"
	"net/netip"
	"strings"

	gw "sigs.k8s.io/gateway-api/apis/v1"
)

func (c *conv) k8sGateway(s *gw.GatewaySpec) {
	c.objectName("spec.gatewayClassName", string(s.GatewayClassName))
	c.needed("spec.listeners", len(s.Listeners), "add a listener: name, port and protocol")
	c.limited("spec.listeners", len(s.Listeners), 64)
	c.limited("spec.addresses", len(s.Addresses), 16)
	if s.DefaultScope != "" && s.DefaultScope != gw.GatewayDefaultScopeNone {
		c.unsupported("spec.defaultScope", string(s.DefaultScope), "default gateways are not implemented: name the Gateway in the parentRefs of routes")
	}
	list := make([]listener, 0, len(s.Listeners))
	for _, l := range s.Listeners {
		list = append(list, listener{l.Name, l.Hostname, l.Port, l.Protocol, l.TLS, l.AllowedRoutes})
	}
	c.listeners(list)
	c.addresses(s.Addresses)
	if a := s.AllowedListeners; a != nil && a.Namespaces != nil {
		c.fromNamespaces("spec.allowedListeners.namespaces", a.Namespaces.From, "All", "Selector", "Same", "None")
		c.labelSelector("spec.allowedListeners.namespaces.selector", a.Namespaces.Selector)
	}
	if s.TLS != nil {
		c.gatewayTLSConfig(s.TLS)
	}
	c.infrastructure(s.Infrastructure)
}

func (c *conv) infrastructure(in *gw.GatewayInfrastructure) {
	if in == nil {
		return
	}
	const path = "spec.infrastructure"
	c.limited(path+".labels", len(in.Labels), 8)
	c.limited(path+".annotations", len(in.Annotations), 16)
	labels := map[string]string{}
	for k, v := range in.Labels {
		labels[string(k)] = string(v)
	}
	c.labels(path+".labels", labels)
	if p := in.ParametersRef; p != nil {
		c.groupKind(path+".parametersRef", &p.Group, &p.Kind)
		c.objectName(path+".parametersRef.name", p.Name)
		if p.Kind != "" && (p.Group != "" || p.Kind != "ConfigMap") {
			c.unsupported(path+".parametersRef.kind", string(p.Kind), "refer to a ConfigMap (group \"\")")
		}
	}
}

func (c *conv) addresses(list []gw.GatewaySpecAddress) {
	seen := map[string]bool{}
	for i, a := range list {
		p := idx("spec.addresses", i)
		t := deref1(a.Type, gw.IPAddressType)
		if a.Value == "" {
			continue
		}
		if k := string(t) + " " + a.Value; seen[k] {
			c.fail(CodeInvalidValue, p, a.Value, "the address is written twice", "keep one of them")
		} else {
			seen[k] = true
		}
		switch t {
		case gw.IPAddressType:
			if _, err := netip.ParseAddr(a.Value); err != nil {
				c.fail(CodeInvalidValue, p+".value", a.Value, "this is not an IP address", "write it like 10.1.2.3, or set type: Hostname")
			}
		case gw.HostnameAddressType:
			c.apiHost(p+".value", a.Value, true)
		}
	}
}

func (c *conv) listenerSet(s *gw.ListenerSetSpec) {
	r := s.ParentRef
	c.groupKind("spec.parentRef", r.Group, r.Kind)
	c.objectName("spec.parentRef.name", string(r.Name))
	c.namespaceName("spec.parentRef.namespace", r.Namespace)
	if deref1(r.Group, gw.GroupName) != gw.GroupName || deref1(r.Kind, "Gateway") != "Gateway" {
		c.unsupported("spec.parentRef.kind", string(deref1(r.Kind, "Gateway")), "the parent of a ListenerSet is a Gateway")
	}
	c.needed("spec.listeners", len(s.Listeners), "add a listener: name, port and protocol")
	c.limited("spec.listeners", len(s.Listeners), 64)
	list := make([]listener, 0, len(s.Listeners))
	for _, l := range s.Listeners {
		list = append(list, listener(l))
	}
	c.listeners(list)
}

// listener is what listeners of a Gateway and of a ListenerSet have, which is the same.
type listener struct {
	Name          gw.SectionName
	Hostname      *gw.Hostname
	Port          gw.PortNumber
	Protocol      gw.ProtocolType
	TLS           *gw.ListenerTLSConfig
	AllowedRoutes *gw.AllowedRoutes
}

func (c *conv) listeners(list []listener) {
	names, places := map[gw.SectionName]bool{}, map[string]bool{}
	for i, l := range list {
		p := idx("spec.listeners", i)
		c.sectionName(p+".name", l.Name, true)
		if names[l.Name] {
			c.fail(CodeDuplicateObject, p+".name", string(l.Name), "two listeners have the same name", "rename one of them")
		}
		names[l.Name] = true
		c.apiPort(p+".port", l.Port)
		k := fmt.Sprint(l.Port, " ", l.Protocol, " ", deref1(l.Hostname, ""))
		if places[k] {
			c.fail(CodeDuplicatePort, p, k, "two listeners have the same port, protocol and hostname", "give each its own hostname, or merge them")
		}
		places[k] = true
		c.listenerProtocol(p, &l)
		c.allowedRoutes(p+".allowedRoutes", l.AllowedRoutes)
	}
}

func (c *conv) listenerProtocol(p string, l *listener) {
	switch l.Protocol {
	case "":
		c.missing(p+".protocol", "use HTTP, HTTPS, TLS or TCP")
	case gw.HTTPProtocolType, gw.TCPProtocolType:
		if l.TLS != nil {
			c.fail(CodeExclusive, p+".tls", "", "a listener of protocol "+string(l.Protocol)+" has no tls", "use protocol HTTPS or TLS, or remove tls")
		}
	case gw.HTTPSProtocolType:
		if l.TLS != nil && deref1(l.TLS.Mode, gw.TLSModeTerminate) != gw.TLSModeTerminate {
			c.fail(CodeInvalidValue, p+".tls.mode", string(*l.TLS.Mode), "TLS ends at a listener of protocol HTTPS", "use mode Terminate, or protocol TLS")
		}
	case gw.TLSProtocolType:
		if l.TLS == nil || l.TLS.Mode == nil || *l.TLS.Mode == "" {
			c.missing(p+".tls.mode", "a listener of protocol TLS says where TLS ends: Terminate or Passthrough")
		}
	default:
		c.unsupported(p+".protocol", string(l.Protocol), "use HTTP, HTTPS, TLS or TCP")
	}
	if l.Protocol == gw.TCPProtocolType && deref1(l.Hostname, "") != "" {
		c.fail(CodeExclusive, p+".hostname", string(*l.Hostname), "a listener of protocol TCP has no hostname", "remove it")
	}
	if l.Hostname != nil && *l.Hostname != "" {
		c.apiHost(p+".hostname", string(*l.Hostname), true)
	}
	if l.TLS != nil {
		c.listenerTLS(p+".tls", l.TLS)
	}
}

func (c *conv) listenerTLS(p string, t *gw.ListenerTLSConfig) {
	mode := deref1(t.Mode, gw.TLSModeTerminate)
	if mode != "" {
		c.oneOf(p+".mode", string(mode), "Terminate", "Passthrough")
	}
	for k := range t.Options {
		c.unsupported(p+".options", string(k), "remove it")
	}
	if mode == gw.TLSModeTerminate && len(t.CertificateRefs) == 0 && len(t.Options) == 0 {
		c.missing(p+".certificateRefs", "name a Secret with tls.crt and tls.key")
	}
	c.limited(p+".certificateRefs", len(t.CertificateRefs), 64)
	for i, r := range t.CertificateRefs {
		c.secretRef(idx(p+".certificateRefs", i), &r)
	}
}

func (c *conv) secretRef(p string, r *gw.SecretObjectReference) {
	c.groupKind(p, r.Group, r.Kind)
	c.objectName(p+".name", string(r.Name))
	c.namespaceName(p+".namespace", r.Namespace)
	if g, k := deref1(r.Group, ""), deref1(r.Kind, "Secret"); g != "" || k != "Secret" {
		c.unsupported(p+".kind", strings.TrimPrefix(string(g)+"/"+string(k), "/"), "refer to a Secret")
	}
}

func (c *conv) allowedRoutes(p string, a *gw.AllowedRoutes) {
	if a == nil {
		return
	}
	if a.Namespaces != nil {
		c.fromNamespaces(p+".namespaces", a.Namespaces.From, "All", "Selector", "Same")
		c.labelSelector(p+".namespaces.selector", a.Namespaces.Selector)
		if deref1(a.Namespaces.From, gw.NamespacesFromSame) == gw.NamespacesFromSelector && a.Namespaces.Selector == nil {
			c.missing(p+".namespaces.selector", "say which namespaces: matchLabels: {…}")
		}
	}
	c.limited(p+".kinds", len(a.Kinds), 8)
	for i, k := range a.Kinds {
		c.groupKind(idx(p+".kinds", i), k.Group, &k.Kind)
	}
}

func (c *conv) fromNamespaces(p string, from *gw.FromNamespaces, known ...string) {
	if from != nil && *from != "" {
		c.oneOf(p+".from", string(*from), known...)
	}
}

// gatewayTLSConfig checks what holds for all listeners: client certificates that are asked for, and the one that is presented to backends.
func (c *conv) gatewayTLSConfig(t *gw.GatewayTLSConfig) {
	if t.Backend != nil && t.Backend.ClientCertificateRef != nil {
		c.secretRef("spec.tls.backend.clientCertificateRef", t.Backend.ClientCertificateRef)
	}
	if t.Frontend == nil {
		return
	}
	c.frontendValidation("spec.tls.frontend.default", &t.Frontend.Default)
	seen := map[gw.PortNumber]bool{}
	for i := range t.Frontend.PerPort {
		pp := &t.Frontend.PerPort[i]
		p := idx("spec.tls.frontend.perPort", i)
		c.apiPort(p+".port", pp.Port)
		if seen[pp.Port] {
			c.fail(CodeDuplicatePort, p+".port", fmt.Sprint(pp.Port), "the port is configured twice", "keep one of them")
		}
		seen[pp.Port] = true
		c.frontendValidation(p+".tls", &pp.TLS)
	}
}

func (c *conv) frontendValidation(p string, t *gw.TLSConfig) {
	v := t.Validation
	if v == nil {
		return
	}
	p += ".validation"
	if v.Mode != "" {
		c.oneOf(p+".mode", string(v.Mode), "AllowValidOnly", "AllowInsecureFallback")
	}
	c.needed(p+".caCertificateRefs", len(v.CACertificateRefs), "name a ConfigMap with ca.crt")
	c.limited(p+".caCertificateRefs", len(v.CACertificateRefs), 16)
	for i, r := range v.CACertificateRefs {
		rp := idx(p+".caCertificateRefs", i)
		c.groupKind(rp, &r.Group, &r.Kind)
		c.objectName(rp+".name", string(r.Name))
		c.namespaceName(rp+".namespace", r.Namespace)
		if r.Group != "" || r.Kind != "" && r.Kind != "ConfigMap" && r.Kind != "Secret" {
			c.unsupported(rp+".kind", string(r.Kind), "refer to a ConfigMap or a Secret with ca.crt")
		}
	}
}

func (c *conv) backendTLSPolicy(s *gw.BackendTLSPolicySpec) {
	c.needed("spec.targetRefs", len(s.TargetRefs), "name a Service")
	c.limited("spec.targetRefs", len(s.TargetRefs), 16)
	seen := map[string]bool{}
	whole := map[string]bool{}
	parts := map[string]bool{}
	for i, t := range s.TargetRefs {
		p := idx("spec.targetRefs", i)
		c.groupKind(p, &t.Group, &t.Kind)
		c.objectName(p+".name", string(t.Name))
		if t.Group != "" || t.Kind != "" && t.Kind != "Service" {
			c.unsupported(p+".kind", string(t.Kind), "target a Service (group \"\")")
		}
		name, section := string(t.Name), deref1(t.SectionName, "")
		if k := name + " " + string(section); seen[k] {
			c.fail(CodeDuplicateObject, p, name, "the target is named twice", "give each its own sectionName (a port's name), or keep one of them")
		} else {
			seen[k] = true
		}
		if section == "" {
			whole[name] = true
		} else {
			parts[name] = true
		}
		if whole[name] && parts[name] {
			c.fail(CodeExclusive, p+".sectionName", string(section), "a Service is targeted whole and by port", "give every reference to it a sectionName")
		}
	}
	for k := range s.Options {
		c.unsupported("spec.options", string(k), "remove it")
	}
	c.backendValidation("spec.validation", &s.Validation)
}

func (c *conv) backendValidation(p string, v *gw.BackendTLSPolicyValidation) {
	if v.Hostname == "" {
		c.missing(p+".hostname", "the name that the backend's certificate has")
	} else {
		c.apiHost(p+".hostname", string(v.Hostname), false)
	}
	known := deref1(v.WellKnownCACertificates, "")
	switch {
	case len(v.CACertificateRefs) > 0 && known != "":
		c.fail(CodeExclusive, p+".wellKnownCACertificates", string(known), "caCertificateRefs and wellKnownCACertificates exclude each other", "keep one of them")
	case len(v.CACertificateRefs) == 0 && known == "":
		c.missing(p+".caCertificateRefs", "name a ConfigMap with ca.crt, or set wellKnownCACertificates: System")
	case known != "":
		c.oneOf(p+".wellKnownCACertificates", string(known), "System")
	}
	c.limited(p+".caCertificateRefs", len(v.CACertificateRefs), 8)
	for i, r := range v.CACertificateRefs {
		rp := idx(p+".caCertificateRefs", i)
		c.objectName(rp+".name", string(r.Name))
		if r.Group != "" || r.Kind != "ConfigMap" && r.Kind != "Secret" {
			c.unsupported(rp+".kind", string(r.Kind), "refer to a ConfigMap or a Secret with ca.crt (group \"\")")
		}
	}
	c.limited(p+".subjectAltNames", len(v.SubjectAltNames), 5)
	for i, n := range v.SubjectAltNames {
		np := idx(p+".subjectAltNames", i)
		switch n.Type {
		case gw.HostnameSubjectAltNameType:
			c.apiHost(np+".hostname", string(n.Hostname), true)
			if n.URI != "" {
				c.fail(CodeExclusive, np+".uri", string(n.URI), "a name of type Hostname has no uri", "remove it")
			}
		case gw.URISubjectAltNameType:
			if !strings.Contains(string(n.URI), "://") {
				c.fail(CodeInvalidValue, np+".uri", string(n.URI), "this is not an absolute URI", "write it like spiffe://cluster.local/ns/shop/sa/web")
			}
			if n.Hostname != "" {
				c.fail(CodeExclusive, np+".hostname", string(n.Hostname), "a name of type URI has no hostname", "remove it")
			}
		default:
			c.oneOf(np+".type", string(n.Type), "Hostname", "URI")
		}
	}
}
