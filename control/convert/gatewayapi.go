package convert

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

// gatewayGroup is the API group of the Gateway API.
const gatewayGroup = gw.GroupName

// gatewayAPIKinds are the kinds of the Gateway API and those that its objects refer to. All versions are decoded into the types of
// v1, which the older ones agree with in all fields that they have.
func gatewayAPIKinds() []*kindInfo {
	v := func(names ...string) []string {
		out := make([]string, 0, len(names))
		for _, n := range names {
			out = append(out, gatewayGroup+"/"+n)
		}
		return out
	}
	return []*kindInfo{
		{kind: model.KindGatewayClass, versions: v("v1", "v1beta1"), new: func() any { return new(gw.GatewayClass) }},
		{kind: model.KindK8sGateway, versions: v("v1", "v1beta1"), namespaced: true, new: func() any { return new(gw.Gateway) }},
		{kind: model.KindListenerSet, versions: v("v1"), namespaced: true, new: func() any { return new(gw.ListenerSet) }},
		{kind: model.KindHTTPRoute, versions: v("v1", "v1beta1"), namespaced: true, new: func() any { return new(gw.HTTPRoute) }},
		{kind: model.KindGRPCRoute, versions: v("v1"), namespaced: true, new: func() any { return new(gw.GRPCRoute) }},
		{kind: model.KindTLSRoute, versions: v("v1", "v1alpha3", "v1alpha2"), namespaced: true, new: func() any { return new(gw.TLSRoute) }},
		{kind: model.KindTCPRoute, versions: v("v1", "v1alpha2"), namespaced: true, new: func() any { return new(gw.TCPRoute) }},
		{kind: model.KindReferenceGrant, versions: v("v1", "v1beta1"), namespaced: true, new: func() any { return new(gw.ReferenceGrant) }},
		{kind: model.KindBackendTLSPolicy, versions: v("v1", "v1alpha3"), namespaced: true, new: func() any { return new(gw.BackendTLSPolicy) }},
		{kind: model.KindSecret, versions: []string{"v1"}, namespaced: true, specless: true, new: func() any { return new(corev1.Secret) }},
		{kind: model.KindConfigMap, versions: []string{"v1"}, namespaced: true, specless: true, new: func() any { return new(corev1.ConfigMap) }},
	}
}

// kindOf tells kinds apart that two groups have.
func kindOf(kind, apiVersion string) model.Kind {
	if kind == "Gateway" && strings.HasPrefix(apiVersion, gatewayGroup+"/") {
		return model.KindK8sGateway
	}
	return model.Kind(kind)
}

// gatewayAPISupport is the allow-list of the Gateway API's Go types: the objects themselves. What is inside and not supported is
// refused by ToModel, so that an object that comes from an API server can still be given a condition.
func gatewayAPISupport(t reflect.Type) (support, bool) {
	switch t.Name() {
	case "GatewayClass", "Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "ReferenceGrant", "BackendTLSPolicy":
		s := allow("kind apiVersion metadata spec")
		s.servers = map[string]bool{"status": true}
		return s, true
	}
	return support{all: true}, strings.HasPrefix(t.PkgPath(), "sigs.k8s.io/gateway-api/")
}

// gatewayAPI checks one object of the Gateway API as its CRD and its CEL rules do, and refuses what Weft does not do. It makes no values: what
// the object means depends on others, see control/gatewayapi.
func (c *conv) gatewayAPI() {
	switch v := c.o.Value.(type) {
	case *gw.GatewayClass:
		c.gatewayClass(&v.Spec)
	case *gw.Gateway:
		c.k8sGateway(&v.Spec)
	case *gw.ListenerSet:
		c.listenerSet(&v.Spec)
	case *gw.HTTPRoute:
		c.apiHTTPRoute(&v.Spec)
	case *gw.GRPCRoute:
		c.apiGRPCRoute(&v.Spec)
	case *gw.TLSRoute:
		c.apiTLSRoute(&v.Spec)
	case *gw.TCPRoute:
		c.apiTCPRoute(&v.Spec)
	case *gw.ReferenceGrant:
		c.referenceGrant(&v.Spec)
	case *gw.BackendTLSPolicy:
		c.backendTLSPolicy(&v.Spec)
	}
}

var (
	controllerRE  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$`)
	apiHostRE     = regexp.MustCompile(`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	apiDurationRE = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)
)

func deref1[T any](p *T, d T) T {
	if p == nil {
		return d
	}
	return *p
}

// limited checks the length of a list.
func (c *conv) limited(path string, n, most int) {
	if n > most {
		c.fail(CodeInvalidValue, path, strconv.Itoa(n)+" entries", "the list is too long", fmt.Sprintf("at most %d entries", most))
	}
}

// needed checks that a list has an entry.
func (c *conv) needed(path string, n int, hint string) {
	if n == 0 {
		c.missing(path, hint)
	}
}

func (c *conv) unsupported(path, val, hint string) {
	c.fail(CodeUnsupportedField, path, val, "the field is not supported", hint)
}

func (c *conv) objectName(path, name string) {
	if name == "" {
		c.missing(path, "name the object")
	} else if !isSubdomain(name) {
		c.fail(CodeInvalidName, path, name, "the name is not valid", "use lower-case letters, digits, '-' and '.', at most 253")
	}
}

func (c *conv) namespaceName(path string, ns *gw.Namespace) {
	if ns != nil && !isLabel(string(*ns)) {
		c.fail(CodeInvalidName, path, string(*ns), "the namespace is not valid", "use lower-case letters, digits and '-', at most 63")
	}
}

func (c *conv) groupKind(path string, group *gw.Group, kind *gw.Kind) {
	if group != nil && *group != "" && !isSubdomain(string(*group)) {
		c.fail(CodeInvalidValue, path+".group", string(*group), "this is not an API group", `use "" for core kinds, or a domain like gateway.networking.k8s.io`)
	}
	if kind != nil && *kind == "" {
		c.missing(path+".kind", "name a kind")
	}
}

func (c *conv) apiPort(path string, p gw.PortNumber) {
	if p < 1 || p > 65535 {
		c.fail(CodeInvalidPort, path, strconv.Itoa(int(p)), "the port is out of range", "use 1 to 65535")
	}
}

// apiHost checks a host of the Gateway API: lower case, a wildcard only as its first label, never an address.
func (c *conv) apiHost(path, h string, wild bool) {
	switch {
	case h == "":
		c.fail(CodeInvalidHost, path, h, "the host is empty", "remove it to serve all hosts, or write a name")
	case strings.HasPrefix(h, "*") && !wild:
		c.fail(CodeInvalidHost, path, h, "a wildcard is not allowed here", "write a full name")
	case len(h) > 253 || !apiHostRE.MatchString(h):
		c.fail(CodeInvalidHost, path, h, "this is not a host name", "use lower-case letters, digits, '-' and '.'; a wildcard is the whole first label, like *.example.com; no port")
	case isAddress(h):
		c.fail(CodeInvalidHost, path, h, "an address is not a host name here", "write a name")
	}
}

func isAddress(h string) bool {
	_, err := strconv.Atoi(h[strings.LastIndexByte(h, '.')+1:])
	return err == nil && strings.Count(h, ".") == 3
}

func (c *conv) apiHosts(path string, hosts []gw.Hostname) {
	seen := map[gw.Hostname]bool{}
	for i, h := range hosts {
		c.apiHost(idx(path, i), string(h), true)
		if seen[h] {
			c.fail(CodeDuplicateHost, idx(path, i), string(h), "the host is written twice", "keep one of them")
		}
		seen[h] = true
	}
}

// apiDuration reads a duration of the Gateway API (GEP-2257: 10s, 1m30s, 100ms).
func (c *conv) apiDuration(path string, d *gw.Duration) time.Duration {
	if d == nil {
		return 0
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil || !apiDurationRE.MatchString(string(*d)) {
		c.fail(CodeInvalidDuration, path, string(*d), "the value is not a duration", "write it like 10s, 1m30s or 100ms: at most five digits before each of h, m, s, ms, no fractions")
	}
	return v
}

func (c *conv) sectionName(path string, s gw.SectionName, required bool) {
	switch {
	case s == "" && required:
		c.missing(path, "give it a name")
	case s != "" && !isSubdomain(string(s)):
		c.fail(CodeInvalidName, path, string(s), "the name is not valid", "use lower-case letters, digits, '-' and '.', at most 253")
	}
}

func (c *conv) labelSelector(path string, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		c.fail(CodeInvalidLabel, path, "", "the selector is not valid: "+err.Error(), "use matchLabels, or matchExpressions with In, NotIn, Exists or DoesNotExist")
	}
}

func (c *conv) gatewayClass(s *gw.GatewayClassSpec) {
	if s.ControllerName == "" {
		c.missing("spec.controllerName", "use weft.mesh/gateway-controller")
	} else if !controllerRE.MatchString(string(s.ControllerName)) {
		c.fail(CodeInvalidValue, "spec.controllerName", string(s.ControllerName), "this is not a controller name", "write it as a domain and a path, like weft.mesh/gateway-controller")
	}
	if s.ParametersRef != nil {
		c.unsupported("spec.parametersRef", s.ParametersRef.Name, "give the Gateway infrastructure.parametersRef, or remove it")
	}
	if s.Description != nil && len(*s.Description) > 64 {
		c.fail(CodeInvalidValue, "spec.description", *s.Description, "the description is too long", "at most 64 bytes")
	}
}

func (c *conv) referenceGrant(s *gw.ReferenceGrantSpec) {
	c.needed("spec.from", len(s.From), "say who may refer: group, kind and namespace")
	c.needed("spec.to", len(s.To), "say what may be referred to: group and kind")
	c.limited("spec.from", len(s.From), 16)
	c.limited("spec.to", len(s.To), 16)
	for i, f := range s.From {
		p := idx("spec.from", i)
		c.groupKind(p, &f.Group, &f.Kind)
		if f.Namespace == "" {
			c.missing(p+".namespace", "name the namespace that refers")
		} else {
			c.namespaceName(p+".namespace", &f.Namespace)
		}
	}
	for i, t := range s.To {
		p := idx("spec.to", i)
		c.groupKind(p, &t.Group, &t.Kind)
		if t.Name != nil {
			c.objectName(p+".name", string(*t.Name))
		}
	}
}

// Check tells what is wrong with one object of the Gateway API, as ToModel would, for an object that was not read from text: the
// diagnostics have fields, messages and hints, and no places. Only errors are given.
func Check(key model.Key, value any) []admin.Diagnostic {
	c := &conv{o: &Object{Key: key, Value: value, unplaced: true}, mesh: withDefaults(model.Mesh{})}
	c.gatewayAPI()
	return slices.DeleteFunc(Sort(c.diags), func(d admin.Diagnostic) bool { return d.Severity != admin.SeverityError })
}
