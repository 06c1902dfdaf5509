package ingress

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"weft.mesh/weft/model"
)

type nn struct{ namespace, name string }

func (n nn) String() string { return n.namespace + "/" + n.name }

// state is one computation.
type state struct {
	in       *Input
	out      *Output
	classes  map[string]*model.IngressClass
	services map[nn]*model.Service
	secrets  map[nn]*model.Secret
	hosts    map[string]*host
	tlsHosts map[string]*server // by host
	servers  map[nn]*server     // by Secret
}

// host is what all Ingresses say of one; "" is every host that has no own.
type host struct {
	name     string
	paths    []entry
	taken    map[pathKey]*model.Ingress
	fallback *fallback
	sources  []*model.Ingress // oldest first
}

type pathKey struct{ typ, path string }

// entry is a path, and where it leads.
type entry struct {
	match match
	route model.Route // without its match
}

// fallback is a default backend.
type fallback struct {
	ingress *model.Ingress
	route   model.Route // without its match
}

// server is a Secret with the hosts that are served by it.
type server struct {
	secret nn
	oldest *model.Ingress // that names it
	hosts  []string
}

// Compute tells what the Ingresses mean.
func Compute(in *Input) *Output {
	s := &state{in: in, out: &Output{Objects: map[model.Key][]model.Object{}}, classes: map[string]*model.IngressClass{},
		services: map[nn]*model.Service{}, secrets: map[nn]*model.Secret{}, hosts: map[string]*host{}, tlsHosts: map[string]*server{}, servers: map[nn]*server{}}
	for _, c := range in.Classes {
		s.classes[c.Name] = c
	}
	for _, x := range in.Services {
		if x.Kind == model.KindService {
			s.services[nn{x.Namespace, x.Name}] = x
		}
	}
	for _, x := range in.Secrets {
		s.secrets[nn{x.Namespace, x.Name}] = x
	}
	var served []*model.Ingress
	for _, ing := range slices.SortedFunc(slices.Values(in.Ingresses), older) {
		if s.ours(ing) {
			served = append(served, ing)
			s.out.Served = append(s.out.Served, ing.Meta.Key)
		}
	}
	for _, ing := range served {
		s.annotations(ing)
		s.rules(ing)
		s.tls(ing)
	}
	if len(served) > 0 {
		s.emit(served[0])
	}
	slices.SortFunc(s.out.Served, model.CompareNames)
	slices.SortStableFunc(s.out.Findings, func(a, b Finding) int { return model.CompareNames(a.Key, b.Key) })
	return s.out
}

// older orders by age; of the same age, by name. What has no time of creation is about to be made.
func older(a, b *model.Ingress) int {
	if x, y := a.Created.IsZero(), b.Created.IsZero(); x != y {
		if x {
			return 1
		}
		return -1
	}
	return cmp.Or(a.Created.Compare(b.Created), model.CompareNames(a.Meta.Key, b.Meta.Key))
}

func (s *state) fail(ing *model.Ingress, code, field, value, message, hint string) {
	s.out.Findings = append(s.out.Findings, Finding{Key: ing.Meta.Key, Error: true, Code: code, Field: field, Value: value, Message: message, Hint: hint})
}

func (s *state) warn(ing *model.Ingress, code, field, value, message, hint string) {
	s.out.Findings = append(s.out.Findings, Finding{Key: ing.Meta.Key, Code: code, Field: field, Value: value, Message: message, Hint: hint})
}

// ours tells whether we serve an Ingress. Without an API server nobody else would, so that it is said if we do not.
func (s *state) ours(ing *model.Ingress) bool {
	set := &s.in.Settings
	if class, ok := ing.Annotations[Annotation]; ok { // it goes first, as the API says
		ok = !set.Off && slices.Contains(set.Annotations, class)
		if !ok && set.Local {
			s.warn(ing, CodeClass, "metadata.annotations["+Annotation+"]", class, "the class is not served here: the Ingress has no effect", "use spec.ingressClassName: "+ClassWeft)
		}
		return ok
	}
	if ing.Class == nil {
		return s.unclassed(ing)
	}
	controller := ""
	switch c := s.classes[*ing.Class]; {
	case c != nil:
		controller = c.Controller
	case set.Local && (*ing.Class == ClassWeft || *ing.Class == ClassIstio):
		controller = Controller
	}
	ok := !set.Off && slices.Contains(set.Controllers, controller)
	if !ok && set.Local {
		message := "the class belongs to " + controller + ", which does not run here: the Ingress has no effect"
		if controller == "" {
			message = "there is no IngressClass of this name: the Ingress has no effect"
		}
		s.warn(ing, CodeClass, "spec.ingressClassName", *ing.Class, message, "use "+ClassWeft)
	}
	return ok
}

// unclassed judges an Ingress that names no class. An API server writes the default class into it when it is made.
func (s *state) unclassed(ing *model.Ingress) bool {
	set := &s.in.Settings
	ok := set.Unclassed
	if set.Local {
		for _, c := range s.classes {
			ok = ok || c.Default && slices.Contains(set.Controllers, c.Controller)
		}
	}
	if ok = ok && !set.Off; !ok && set.Local {
		s.warn(ing, CodeClass, "spec.ingressClassName", "", "the Ingress names no class: it has no effect", "add ingressClassName: "+ClassWeft)
	}
	return ok
}

// annotations says which ones of other controllers have no effect.
func (s *state) annotations(ing *model.Ingress) {
	for _, k := range slices.Sorted(maps.Keys(ing.Annotations)) {
		domain, _, ok := strings.Cut(k, "/")
		if ok && (domain == "ingress.kubernetes.io" || strings.HasSuffix(domain, ".ingress.kubernetes.io")) {
			s.warn(ing, CodeAnnotation, "metadata.annotations["+k+"]", ing.Annotations[k], "the annotation is another controller's and has no effect", "remove it; an HTTPRoute or a VirtualService can rewrite, redirect and set timeouts")
		}
	}
}

func (s *state) host(name string) *host {
	h := s.hosts[name]
	if h == nil {
		h = &host{name: name, taken: map[pathKey]*model.Ingress{}}
		s.hosts[name] = h
	}
	return h
}

// from notes an Ingress that has a part in the host. They come oldest first.
func (h *host) from(ing *model.Ingress) {
	if n := len(h.sources); n == 0 || h.sources[n-1] != ing {
		h.sources = append(h.sources, ing)
	}
}

// rules puts the paths of an Ingress to those of older ones.
func (s *state) rules(ing *model.Ingress) {
	rank := 0
	for i := range ing.Rules {
		r := &ing.Rules[i]
		h := s.host(r.Host)
		for j := range r.Paths {
			p := &r.Paths[j]
			rank++
			m, ok := s.match(ing, p)
			if !ok {
				continue
			}
			if first := h.taken[m.key()]; first != nil {
				s.warn(ing, CodePathConflict, p.Field+".path", p.Path, "requests for this host and path go where "+whose(first, ing)+" says", "keep one of them")
				continue
			}
			h.taken[m.key()] = ing
			h.from(ing)
			h.paths = append(h.paths, entry{m, s.route(ing, &p.Backend, strconv.Itoa(rank))})
		}
	}
	if ing.Default == nil {
		return
	}
	fall := &fallback{ing, s.route(ing, ing.Default, "default")}
	for i := range ing.Rules {
		if h := s.hosts[ing.Rules[i].Host]; h.fallback == nil {
			h.fallback = fall
			h.from(ing)
		}
	}
	switch all := s.host(""); {
	case all.fallback == nil:
		all.fallback = fall
		all.from(ing)
	case all.fallback.ingress != ing && len(ing.Rules) == 0:
		s.warn(ing, CodePathConflict, ing.Default.Field, ing.Default.Service, "requests that no rule takes go where "+whose(all.fallback.ingress, ing)+" says", "keep one of them, or name hosts in rules")
	}
}

// whose names the Ingress that was first.
func whose(first, ing *model.Ingress) string {
	if first == ing {
		return "an earlier path of this Ingress"
	}
	return "the older " + first.Meta.Key.String()
}

// tls notes which Secret each host has.
func (s *state) tls(ing *model.Ingress) {
	for i := range ing.TLS {
		t := &ing.TLS[i]
		if t.Secret == "" {
			s.warn(ing, CodeSecret, t.Field+".secretName", "", "no Secret is named: these hosts are not served by TLS", "name a Secret of type kubernetes.io/tls in namespace "+ing.Namespace)
			continue
		}
		s.checkSecret(ing, t)
		hosts := t.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, h := range hosts {
			s.serve(ing, t, h)
		}
	}
}

// serve gives a host its Secret, unless it has one.
func (s *state) serve(ing *model.Ingress, t *model.IngressTLS, h string) {
	secret := nn{ing.Namespace, t.Secret}
	switch first := s.tlsHosts[h]; {
	case first == nil:
		sv := s.servers[secret]
		if sv == nil {
			sv = &server{secret: secret, oldest: ing}
			s.servers[secret] = sv
		}
		s.tlsHosts[h], sv.hosts = sv, append(sv.hosts, h)
	case first.secret != secret:
		s.warn(ing, CodeTLSConflict, t.Field+".hosts", or(h, "*"), "an older tls entry gives the host the certificate of Secret "+first.secret.String(), "use the same Secret, or keep one of them")
	}
}

func (s *state) checkSecret(ing *model.Ingress, t *model.IngressTLS) {
	const fix = "make it with: kubectl create secret tls"
	name := nn{ing.Namespace, t.Secret}
	switch x := s.secrets[name]; {
	case x == nil:
		s.warn(ing, CodeSecret, t.Field+".secretName", t.Secret, "there is no Secret "+name.String()+" with a certificate: its hosts are not served by TLS", fix)
	case x.Problem != "":
		s.warn(ing, CodeSecret, t.Field+".secretName", t.Secret, "the hosts are not served by TLS: "+x.Problem, fix)
	case len(x.Cert) == 0:
		s.warn(ing, CodeSecret, t.Field+".secretName", t.Secret, "the hosts are not served by TLS: the Secret has no tls.crt and tls.key", fix)
	}
}
