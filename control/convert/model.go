package convert

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

// ToModel turns one object into the values it stands for (a ServiceEntry makes
// one Service for each host) and checks everything that can be checked without
// looking at other objects. With an error among the diagnostics it returns no values.
func ToModel(o *Object, mesh model.Mesh) ([]model.Object, []admin.Diagnostic) {
	c := &conv{o: o, mesh: withDefaults(mesh)}
	out := c.convert()
	if HasErrors(c.diags) {
		out = nil
	}
	return out, Sort(c.diags)
}

func withDefaults(m model.Mesh) model.Mesh {
	if m.Domain == "" {
		m.Domain = "cluster.local"
	}
	if m.RootNamespace == "" {
		m.RootNamespace = "weft-system"
	}
	return m
}

// conv converts one object and collects what is wrong with it.
type conv struct {
	o     *Object
	mesh  model.Mesh
	diags []admin.Diagnostic
}

func (c *conv) convert() []model.Object {
	switch v := c.o.Value.(type) {
	case *corev1.Namespace:
		return []model.Object{&model.Namespace{Meta: c.meta()}}
	case *corev1.ServiceAccount:
		return []model.Object{&model.ServiceAccount{Meta: c.meta()}}
	case *corev1.Service:
		if c.mesh.EndpointSlices && c.o.File == SourceKubernetes {
			return c.kubeService(v)
		}
		return c.service(v)
	case *model.Workload:
		return []model.Object{v}
	case *model.EndpointSlice:
		return []model.Object{v}
	case *model.Node:
		return []model.Object{v}
	case *model.Deployment:
		return []model.Object{v}
	case *corev1.Pod:
		return c.pod(v)
	case *appsv1.Deployment:
		return deploymentModel(c, v)
	case *networking.VirtualService:
		return c.virtualService(v)
	case *networking.DestinationRule:
		return c.destinationRule(v)
	case *networking.Gateway:
		return c.gateway(v)
	case *networking.ServiceEntry:
		return c.serviceEntry(v)
	case *networking.WorkloadEntry:
		return c.workloadEntry(v)
	case *security.PeerAuthentication:
		return c.peerAuthentication(v)
	case *security.AuthorizationPolicy:
		return c.authorizationPolicy(v)
	case *corev1.Secret:
		return c.secret(v)
	case *corev1.ConfigMap:
		return c.configMap(v)
	case *networkingv1.Ingress:
		return c.ingress(v)
	case *networkingv1.IngressClass:
		return c.ingressClass(v)
	}
	if c.o.Key.Kind.IsGatewayAPI() {
		c.gatewayAPI()
		return nil
	}
	c.fail(CodeUnknownKind, "kind", string(c.o.Key.Kind), "the kind has no model", "remove the object")
	return nil
}

func (c *conv) meta() model.Meta { return c.o.Meta }

func (c *conv) ns() string { return c.o.Key.Namespace }

func (c *conv) fail(code, path, val, msg, hint string) {
	c.diags = append(c.diags, c.o.Diagnostic(admin.SeverityError, code, path, val, msg, hint))
}

func (c *conv) warn(code, path, val, msg, hint string) {
	c.diags = append(c.diags, c.o.Diagnostic(admin.SeverityWarning, code, path, val, msg, hint))
}

func (c *conv) missing(path, hint string) {
	c.fail(CodeMissingField, path, "", path[strings.LastIndexByte(path, '.')+1:]+" is missing", hint)
}

func idx(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// host checks a host and gives its full name.
func (c *conv) host(path, h string, wild bool) string {
	if h == "" {
		c.missing(path, "name a service: reviews, or reviews.default.svc."+c.mesh.Domain)
		return ""
	}
	if msg := hostProblem(h, wild); msg != "" {
		c.fail(CodeInvalidHost, path, h, msg, "write a name like reviews or reviews.default.svc."+c.mesh.Domain)
	}
	return expandHost(h, c.ns(), c.mesh.Domain)
}

func (c *conv) port(path string, n uint32) uint16 {
	if n < 1 || n > math.MaxUint16 {
		c.fail(CodeInvalidPort, path, strconv.FormatUint(uint64(n), 10), "the port is out of range", "use 1 to 65535")
		return 0
	}
	return uint16(n)
}

// duration reads an optional duration; a set one must be at least a millisecond, as Istio wants it.
func (c *conv) duration(path string, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	v := d.AsDuration()
	if v < time.Millisecond || v%time.Millisecond != 0 {
		c.fail(CodeInvalidDuration, path, v.String(), "the duration must be at least 1ms and a whole number of milliseconds", "remove the field to switch the limit off, or write it like 500ms or 5s")
	}
	return v
}

// durationOrZero is duration for fields where 0s has a meaning.
func (c *conv) durationOrZero(path string, d *durationpb.Duration) time.Duration {
	if d == nil || d.AsDuration() == 0 {
		return 0
	}
	return c.duration(path, d)
}

func (c *conv) percent(path string, p *networking.Percent) float64 {
	if p == nil {
		return 100
	}
	if p.Value < 0 || p.Value > 100 {
		c.fail(CodeInvalidValue, path+".value", strconv.FormatFloat(p.Value, 'g', -1, 64), "a percentage is from 0 to 100", "use 0 to 100")
	}
	return p.Value
}

func (c *conv) labels(path string, m map[string]string) map[string]string {
	for _, k := range sortedKeys(m) {
		if msg := labelProblem(k, m[k]); msg != "" {
			hint := "use at most 63 letters, digits, '-', '_' and '.'"
			if strings.Contains(m[k], "*") {
				hint = "wildcards are not allowed in selectors; " + hint
			}
			c.fail(CodeInvalidLabel, path+"["+k+"]", m[k], msg, hint)
		}
	}
	return m
}

// selector checks a selector that is set: an empty one would silently mean everything.
func (c *conv) selector(path, field string, set bool, m map[string]string) map[string]string {
	if !set {
		return nil
	}
	if len(m) == 0 {
		c.fail(CodeMissingField, path+"."+field, "", "the selector has no labels", "add labels, or remove "+path+" to select everything")
	}
	return c.labels(path+"."+field, m)
}

// exportTo checks where an object is visible.
func (c *conv) exportTo(path string, list []string) []string {
	seen := map[string]bool{}
	for i, e := range list {
		if seen[e] {
			c.fail(CodeInvalidValue, idx(path, i), e, "the namespace is listed twice", "keep one of them")
		}
		seen[e] = true
		if e != "*" && e != "." && e != "~" && !isLabel(e) {
			c.fail(CodeInvalidValue, idx(path, i), e, "this is not a namespace", `use a namespace, "." for this one, "*" for all, or "~" for none`)
		}
	}
	if len(list) > 1 && (seen["*"] || seen["~"]) {
		c.fail(CodeExclusive, path, strings.Join(list, ", "), `"*" and "~" stand alone`, "keep one entry")
	}
	return list
}

func (c *conv) prefix(path, s string) netip.Prefix {
	if p, err := netip.ParsePrefix(s); err == nil {
		if p != p.Masked() {
			c.warn(CodePrefixBits, path, s, "the prefix has bits set after its length, which do not count", "write "+p.Masked().String())
		}
		return p.Masked()
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		c.fail(CodeInvalidValue, path, s, "this is not an IP address or a prefix", "write it like 10.1.2.3 or 10.1.0.0/16")
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

func (c *conv) prefixes(path string, list []string) []netip.Prefix {
	var out []netip.Prefix
	for i, s := range list {
		out = append(out, c.prefix(idx(path, i), s))
	}
	return out
}

func (c *conv) regex(path, re string) {
	if msg := regexProblem(re); msg != "" {
		c.fail(CodeInvalidRegex, path, re, "the regular expression is not valid RE2: "+msg, "RE2 has no look-around and no back-references; the whole value must match")
	}
}

// stringMatch converts a matcher; an empty one means presence where that is allowed.
func (c *conv) stringMatch(path string, m *networking.StringMatch, presence bool) *model.StringMatch {
	if m == nil {
		return nil
	}
	out := &model.StringMatch{}
	switch t := m.MatchType.(type) {
	case *networking.StringMatch_Exact:
		out.Exact = &t.Exact
	case *networking.StringMatch_Prefix:
		if t.Prefix == "" {
			c.fail(CodeInvalidValue, path+".prefix", "", "the prefix is empty and matches everything", "remove the condition")
		}
		out.Prefix = &t.Prefix
	case *networking.StringMatch_Regex:
		if t.Regex == "" {
			c.fail(CodeInvalidRegex, path+".regex", "", "the regular expression is empty", "remove the condition")
		}
		c.regex(path+".regex", t.Regex)
		out.Regex = &t.Regex
	default:
		if !presence {
			c.fail(CodeMissingField, path, "", "the match has no condition", "add exact, prefix or regex")
		}
	}
	return out
}

func (c *conv) stringMatches(path string, ms map[string]*networking.StringMatch, check func(path, name string)) map[string]model.StringMatch {
	if len(ms) == 0 {
		return nil
	}
	out := make(map[string]model.StringMatch, len(ms))
	for _, k := range sortedKeys(ms) {
		p := path + "[" + k + "]"
		check(p, k)
		if m := c.stringMatch(p, ms[k], true); m != nil {
			out[k] = *m
		}
	}
	return out
}

func (c *conv) oneOf(path, val string, known ...string) {
	if !slices.Contains(known, val) {
		c.fail(CodeInvalidValue, path, val, fmt.Sprintf("%q is not one of the known values", val), enumHint(val, known))
	}
}

func (c *conv) count(path string, n int32) uint32 {
	if n < 0 {
		c.fail(CodeInvalidValue, path, strconv.Itoa(int(n)), "the number is negative", "use 0 or more")
		return 0
	}
	return uint32(n)
}

// portProtocol is the protocol of a service port, by Istio's rules: appProtocol, then the name's prefix, then well-known numbers.
func portProtocol(proto, appProtocol, name string, number uint16) model.Protocol {
	if proto == "UDP" {
		return model.ProtocolUDP
	}
	if appProtocol != "" {
		switch strings.ToLower(appProtocol) {
		case "kubernetes.io/h2c":
			return model.ProtocolHTTP2
		case "kubernetes.io/ws":
			return model.ProtocolHTTP
		case "kubernetes.io/wss":
			return model.ProtocolHTTPS
		}
		if p, ok := ParseProtocol(appProtocol); ok {
			return p
		}
		return model.ProtocolAuto
	}
	prefix, _, _ := strings.Cut(strings.ToLower(name), "-")
	if strings.HasPrefix(strings.ToLower(name), "grpc-web") {
		return model.ProtocolGRPCWeb
	}
	if p, ok := ParseProtocol(prefix); ok {
		return p
	}
	switch number {
	case 25, 53, 3306, 27017: // server speaks first, or binary: sniffing would wait
		return model.ProtocolTCP
	}
	return model.ProtocolAuto
}

// ParseProtocol reads a protocol as Istio spells it, in any letter case.
// Databases that Istio only gives statistics for are TCP.
func ParseProtocol(s string) (model.Protocol, bool) {
	switch strings.ToLower(s) {
	case "http":
		return model.ProtocolHTTP, true
	case "http2":
		return model.ProtocolHTTP2, true
	case "grpc":
		return model.ProtocolGRPC, true
	case "grpc-web":
		return model.ProtocolGRPCWeb, true
	case "https":
		return model.ProtocolHTTPS, true
	case "tls":
		return model.ProtocolTLS, true
	case "tcp", "mongo", "mysql", "redis":
		return model.ProtocolTCP, true
	case "udp":
		return model.ProtocolUDP, true
	}
	return model.ProtocolAuto, false
}
