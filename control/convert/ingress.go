package convert

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"weft.mesh/weft/model"
)

const (
	annotationIngressClass = "kubernetes.io/ingress.class"
	maxController          = 250 // bytes, as the API server has it
)

// ingressKinds are those of networking.k8s.io that are read.
func ingressKinds() []*kindInfo {
	versions := []string{"networking.k8s.io/v1"}
	return []*kindInfo{
		{kind: model.KindIngress, versions: versions, namespaced: true, new: func() any { return new(networkingv1.Ingress) }},
		{kind: model.KindIngressClass, versions: versions, new: func() any { return new(networkingv1.IngressClass) }},
	}
}

// ingressClass reads whose the Ingresses of a class are.
func (c *conv) ingressClass(o *networkingv1.IngressClass) []model.Object {
	s := &o.Spec
	switch {
	case s.Controller == "":
		c.missing("spec.controller", "use weft.mesh/ingress-controller")
	case len(s.Controller) > maxController || !controllerRE.MatchString(s.Controller):
		c.fail(CodeInvalidValue, "spec.controller", s.Controller, "this is not a controller name", "write it as a domain and a path, like weft.mesh/ingress-controller")
	}
	if s.Parameters != nil && c.o.File != SourceKubernetes {
		c.warn(CodeUnsupportedField, "spec.parameters", s.Parameters.Name, "parameters have no effect", "say what serves Ingresses with MeshConfig's ingressService and ingressSelector")
	}
	return []model.Object{&model.IngressClass{Meta: c.meta(), Controller: s.Controller, Default: o.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"}}
}

// ingress reads an Ingress, and checks it as an API server does; one that comes from there has been. What Weft
// does not do is said by control/ingress, and of those that are Weft's alone.
func (c *conv) ingress(o *networkingv1.Ingress) []model.Object {
	s, out := &o.Spec, &model.Ingress{Meta: c.meta(), Class: o.Spec.IngressClassName}
	for i := range s.Rules {
		out.Rules = append(out.Rules, ingressRule(idx("spec.rules", i), &s.Rules[i]))
	}
	if s.DefaultBackend != nil {
		b := ingressBackend("spec.defaultBackend", s.DefaultBackend)
		out.Default = &b
	}
	for i := range s.TLS {
		t := model.IngressTLS{Field: idx("spec.tls", i), Secret: s.TLS[i].SecretName}
		for _, h := range s.TLS[i].Hosts {
			t.Hosts = append(t.Hosts, strings.ToLower(h))
		}
		out.TLS = append(out.TLS, t)
	}
	if c.o.File != SourceKubernetes {
		c.checkIngress(o)
	}
	return []model.Object{out}
}

func ingressRule(field string, r *networkingv1.IngressRule) model.IngressRule {
	out := model.IngressRule{Field: field, Host: strings.ToLower(r.Host)}
	if r.HTTP == nil {
		return out
	}
	for i := range r.HTTP.Paths {
		p := &r.HTTP.Paths[i]
		at := idx(field+".http.paths", i)
		out.Paths = append(out.Paths, model.IngressPath{Field: at, Path: p.Path, Backend: ingressBackend(at+".backend", &p.Backend),
			Type: string(deref1(p.PathType, networkingv1.PathTypeImplementationSpecific))})
	}
	return out
}

func ingressBackend(field string, b *networkingv1.IngressBackend) model.IngressBackend {
	out := model.IngressBackend{Field: field}
	if b.Resource != nil {
		out.Resource = b.Resource.Kind + " " + b.Resource.Name
	}
	if s := b.Service; s != nil {
		out.Service, out.PortName = s.Name, s.Port.Name
		if n := s.Port.Number; n > 0 && n <= math.MaxUint16 {
			out.Port = uint16(n)
		}
	}
	return out
}

// checkIngress is the API server's validation.
func (c *conv) checkIngress(o *networkingv1.Ingress) {
	s := &o.Spec
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		c.missing("spec.rules", "write rules, or a defaultBackend for all requests")
	}
	if s.IngressClassName != nil {
		c.objectName("spec.ingressClassName", *s.IngressClassName)
		if v, ok := o.Annotations[annotationIngressClass]; ok {
			c.fail(CodeExclusive, "spec.ingressClassName", *s.IngressClassName, "the class is named twice: the annotation "+annotationIngressClass+" says "+v, "remove the annotation")
		}
	}
	if s.DefaultBackend != nil {
		c.checkIngressBackend("spec.defaultBackend", s.DefaultBackend)
	}
	for i := range s.Rules {
		p := idx("spec.rules", i)
		c.ingressHost(p+".host", s.Rules[i].Host)
		if h := s.Rules[i].HTTP; h != nil {
			c.needed(p+".http.paths", len(h.Paths), "add a path: path, pathType and backend")
			for j := range h.Paths {
				at := idx(p+".http.paths", j)
				c.checkIngressPath(at, &h.Paths[j])
				c.checkIngressBackend(at+".backend", &h.Paths[j].Backend)
			}
		}
	}
	for i, t := range s.TLS {
		p := idx("spec.tls", i)
		for j, h := range t.Hosts {
			c.ingressHost(idx(p+".hosts", j), h)
		}
		if t.SecretName != "" {
			c.objectName(p+".secretName", t.SecretName)
		}
	}
}

func (c *conv) ingressHost(path, h string) {
	if h != "" {
		c.apiHost(path, h, true)
	}
}

func (c *conv) checkIngressPath(at string, p *networkingv1.HTTPIngressPath) {
	if p.PathType == nil {
		c.missing(at+".pathType", "use Prefix, Exact or ImplementationSpecific")
		return
	}
	typ := string(*p.PathType)
	c.oneOf(at+".pathType", typ, model.PathExact, model.PathPrefix, model.PathSpecific)
	switch {
	case typ == model.PathSpecific && p.Path == "":
	case !strings.HasPrefix(p.Path, "/"):
		c.fail(CodeInvalidValue, at+".path", p.Path, "the path does not begin with a slash", "write it like /shop")
	case typ != model.PathSpecific:
		if part := badPathPart(p.Path); part != "" {
			c.fail(CodeInvalidValue, at+".path", p.Path, fmt.Sprintf("the path has %q, which requests do not have", part), "write the path as it is after normalization")
		}
	}
}

// badPathPart finds what a normalized path has not, as the API server does for Exact and Prefix.
func badPathPart(path string) string {
	for _, s := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(path, s) {
			return s
		}
	}
	for _, s := range []string{"/..", "/."} {
		if strings.HasSuffix(path, s) {
			return s
		}
	}
	return ""
}

func (c *conv) checkIngressBackend(at string, b *networkingv1.IngressBackend) {
	s := b.Service
	switch {
	case b.Resource != nil && s != nil:
		c.fail(CodeExclusive, at+".resource", b.Resource.Name, "a backend has a service or a resource", "remove resource")
		return
	case b.Resource != nil:
		c.objectName(at+".resource.name", b.Resource.Name)
		return
	case s == nil:
		c.missing(at+".service", "name a Service and its port")
		return
	}
	if s.Name == "" {
		c.missing(at+".service.name", "name a Service of the Ingress's namespace")
	} else if !isLabel(s.Name) {
		c.fail(CodeInvalidName, at+".service.name", s.Name, "this is not the name of a Service", "write the plain name of a Service in the Ingress's namespace")
	}
	at += ".service.port"
	switch n, name := s.Port.Number, s.Port.Name; {
	case n != 0 && name != "":
		c.fail(CodeExclusive, at, name, "a port has a number or a name", "remove one of them")
	case n == 0 && name == "":
		c.missing(at, "write port: {number: 80} or {name: http}")
	case n < 0 || n > math.MaxUint16:
		c.fail(CodeInvalidPort, at+".number", strconv.Itoa(int(n)), "the port is out of range", "use 1 to 65535")
	case name != "" && (len(name) > 63 || !portNameRE.MatchString(name)):
		c.fail(CodeInvalidName, at+".name", name, "this is not the name of a port", "write a name that the Service's port has")
	}
}
