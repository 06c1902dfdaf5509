// Package analyze checks a whole set of configuration objects before any of it
// is stored: do references lead somewhere, do objects contradict each other,
// can every route be reached.
//
// [Check] is pure. The same checks run for weft apply, weft up, watched files
// and offline. Errors block a change; warnings tell what is surely not meant.
// What can be seen in one object alone is control/convert's; Check runs that too.
// It knows what the objects say, never what runs: a selector that matches no
// pod yet is a warning.
package analyze

import (
	"sort"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// Options of a check.
type Options struct {
	Mesh model.Mesh
}

// Check says what is wrong with the set that results when changed objects are
// added to existing ones (replacing those of the same key) and deleted ones are
// taken away. Diagnostics about changed objects are all reported; those about
// objects that stay are reported only if the change causes them. A change that
// only deletes never gets errors: what it leaves dangling is a warning.
func Check(existing, changed []convert.Object, deleted []model.Key, opts Options) []admin.Diagnostic {
	gone := make(map[model.Key]bool, len(deleted)+len(changed))
	for _, k := range deleted {
		gone[k] = true
	}
	born := make(map[model.Key]time.Time, len(existing))
	for i := range existing {
		born[existing[i].Key] = existing[i].Meta.Created
	}
	isNew := make(map[model.Key]bool, len(changed))
	var after []convert.Object
	for i := range changed {
		if o := changed[i]; !isNew[o.Key] {
			if o.Meta.Created.IsZero() {
				o.Meta.Created = born[o.Key] // a change does not make it younger
			}
			after = append(after, o)
		}
		isNew[changed[i].Key] = true
	}
	for i := range existing {
		if k := existing[i].Key; !gone[k] && !isNew[k] {
			after = append(after, existing[i])
		}
	}
	var fresh, others []admin.Diagnostic
	for _, d := range analyzeSet(after, opts) {
		if isNew[d.key] {
			fresh = append(fresh, d.Diagnostic)
		} else {
			others = append(others, d.Diagnostic)
		}
	}
	if len(others) > 0 {
		fresh = append(fresh, caused(others, existing, opts, len(changed) == 0)...)
	}
	return convert.Sort(fresh)
}

// CheckAll says everything there is to say about a set.
func CheckAll(objects []convert.Object, opts Options) []admin.Diagnostic {
	return Check(nil, objects, nil, opts)
}

// caused keeps the diagnostics that the set had not before.
func caused(after []admin.Diagnostic, before []convert.Object, opts Options, soft bool) []admin.Diagnostic {
	known := map[admin.Diagnostic]bool{}
	for _, d := range analyzeSet(before, opts) {
		known[d.Diagnostic] = true
	}
	var out []admin.Diagnostic
	for _, d := range after {
		if known[d] {
			continue
		}
		if soft {
			d.Severity = admin.SeverityWarning
		}
		out = append(out, d)
	}
	return out
}

type finding struct {
	admin.Diagnostic
	key model.Key
}

// item is one object with what it stands for.
type item struct {
	obj    *convert.Object
	models []model.Object
}

// service is one service of the set.
type service struct {
	*model.Service
	item *item
}

// workload is a kind of pod: a Deployment, a Pod or a WorkloadEntry.
type workload struct {
	namespace string
	labels    map[string]string
	ports     map[string]uint16 // named
}

// set is the whole candidate configuration, indexed.
type set struct {
	mesh     model.Mesh
	items    []*item
	findings []finding

	byKey      map[model.Key]*item
	services   map[string][]service // by host
	workloads  []workload
	byLabel    map[string][]int // workloads by "namespace|key=value", and "|key=value" for all namespaces
	byNS       map[string][]service
	peers      []*model.PeerAuthentication // oldest first
	accounts   map[string]bool             // "namespace/name" of ServiceAccounts and of what runs
	rules      map[string][]*ruleItem      // DestinationRules by host
	wild       []*ruleItem                 // DestinationRules for wildcards
	gateways   map[string]*gatewayItem
	namespaces map[string]bool
}

type ruleItem struct {
	*model.DestinationRule
	item *item
}

type gatewayItem struct {
	*model.Gateway
	item *item
}

func analyzeSet(objects []convert.Object, opts Options) []finding {
	s := &set{mesh: opts.Mesh, byKey: map[model.Key]*item{}, services: map[string][]service{}, rules: map[string][]*ruleItem{},
		gateways: map[string]*gatewayItem{}, namespaces: map[string]bool{},
		byLabel: map[string][]int{}, byNS: map[string][]service{}, accounts: map[string]bool{}}
	if s.mesh.Domain == "" {
		s.mesh.Domain = "cluster.local"
	}
	if s.mesh.RootNamespace == "" {
		s.mesh.RootNamespace = "weft-system"
	}
	if s.mesh.TrustDomain == "" {
		s.mesh.TrustDomain = "cluster.local"
	}
	for i := range objects {
		s.add(&objects[i])
	}
	sort.SliceStable(s.items, func(i, j int) bool { return older(s.items[i], s.items[j]) })
	for _, it := range s.items {
		s.index(it)
	}
	for _, it := range s.items {
		for _, m := range it.models {
			s.check(it, m)
		}
		s.checkNamespace(it)
	}
	s.checkMeshHosts()
	s.checkRuleConflicts()
	s.checkPeerConflicts()
	s.checkAddresses()
	s.checkGatewayPorts()
	s.checkSecrets()
	s.checkGatewayAPI()
	s.checkIngresses()
	return s.findings
}

// older is the order in which the oldest wins; objects without a time of creation come after those with one.
func older(a, b *item) bool {
	x, y := a.obj.Meta.Created, b.obj.Meta.Created
	if !x.Equal(y) {
		return !x.IsZero() && (y.IsZero() || x.Before(y))
	}
	ka, kb := a.obj.Key, b.obj.Key
	switch {
	case ka.Namespace != kb.Namespace:
		return ka.Namespace < kb.Namespace
	case ka.Name != kb.Name:
		return ka.Name < kb.Name
	}
	return ka.Kind < kb.Kind
}

func (s *set) add(o *convert.Object) {
	models, diags := convert.ToModel(o, s.mesh)
	for _, d := range diags {
		s.findings = append(s.findings, finding{d, o.Key})
	}
	it := &item{obj: o, models: models}
	s.items = append(s.items, it)
	s.byKey[o.Key] = it
}

func (s *set) index(it *item) {
	for _, m := range it.models {
		switch m := m.(type) {
		case *model.Namespace:
			s.namespaces[m.Name] = true
		case *model.ServiceAccount:
			s.accounts[m.Namespace+"/"+m.Name] = true
		case *model.Service:
			svc := service{m, it}
			s.services[m.Host] = append(s.services[m.Host], svc)
			s.byNS[m.Namespace] = append(s.byNS[m.Namespace], svc)
			for _, e := range m.Endpoints {
				s.accounts[m.Namespace+"/"+e.ServiceAccount] = true
			}
		case *model.Deployment:
			s.addWorkload(workload{m.Namespace, m.PodLabels, m.Ports})
		case *model.Workload:
			s.addWorkload(workload{m.Namespace, m.Labels, m.Ports})
			s.accounts[m.Namespace+"/"+m.ServiceAccount] = true
		case *model.DestinationRule:
			r := &ruleItem{m, it}
			if strings.HasPrefix(m.Host, "*") {
				s.wild = append(s.wild, r)
			} else {
				s.rules[m.Host] = append(s.rules[m.Host], r)
			}
		case *model.Gateway:
			s.gateways[m.Namespace+"/"+m.Name] = &gatewayItem{m, it}
		case *model.PeerAuthentication:
			s.peers = append(s.peers, m)
		}
	}
}

func (s *set) addWorkload(w workload) {
	n := len(s.workloads)
	s.workloads = append(s.workloads, w)
	for k, v := range w.labels {
		for _, ns := range []string{w.namespace, ""} {
			key := ns + "|" + k + "=" + v
			s.byLabel[key] = append(s.byLabel[key], n)
		}
	}
}

func (s *set) check(it *item, m model.Object) {
	switch m := m.(type) {
	case *model.Service:
		s.checkService(it, m)
	case *model.Deployment:
		s.checkDeployment(it, m)
	case *model.RouteSet:
		s.checkRoutes(it, m)
	case *model.DestinationRule:
		s.checkRule(it, m)
	case *model.Gateway:
		s.checkSelector(it, "spec.selector", m.Selector, "", "no pod has these labels, so nothing serves this gateway")
	case *model.PeerAuthentication:
		s.checkSelector(it, "spec.selector.matchLabels", m.Selector, s.scope(m.Namespace), "no pod has these labels, so the policy has no effect")
	case *model.AuthorizationPolicy:
		s.checkSelector(it, "spec.selector.matchLabels", m.Selector, s.scope(m.Namespace), "no pod has these labels, so the policy guards nothing")
		s.checkAuthorization(it, m)
	}
}

// scope is the namespace that a policy's selector looks in; "" is all.
func (s *set) scope(ns string) string {
	if s.isRoot(ns) {
		return ""
	}
	return ns
}

func (s *set) isRoot(ns string) bool { return s.mesh.IsRoot(ns) }

func (s *set) report(it *item, sev admin.Severity, code, path, val, msg, hint string) {
	s.findings = append(s.findings, finding{it.obj.Diagnostic(sev, code, path, val, msg, hint), it.obj.Key})
}

func (s *set) fail(it *item, code, path, val, msg, hint string) {
	s.report(it, admin.SeverityError, code, path, val, msg, hint)
}

func (s *set) warn(it *item, code, path, val, msg, hint string) {
	s.report(it, admin.SeverityWarning, code, path, val, msg, hint)
}

// matches tells whether labels have all of the selector.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// selected lists the workloads of a namespace ("" is all) with the labels.
func (s *set) selected(selector map[string]string, ns string) []workload {
	var out []workload
	if len(selector) == 0 {
		for _, w := range s.workloads {
			if ns == "" || w.namespace == ns {
				out = append(out, w)
			}
		}
		return out
	}
	var fewest []int
	first := true
	for k, v := range selector {
		if l := s.byLabel[ns+"|"+k+"="+v]; first || len(l) < len(fewest) {
			fewest, first = l, false
		}
	}
	for _, n := range fewest {
		if matches(selector, s.workloads[n].labels) {
			out = append(out, s.workloads[n])
		}
	}
	return out
}

func (s *set) checkSelector(it *item, path string, selector map[string]string, ns, msg string) {
	if len(selector) == 0 || len(s.selected(selector, ns)) > 0 {
		return
	}
	s.warn(it, CodeSelectsNothing, path, labelText(selector), msg, "compare the labels with the pod template of the Deployment")
}

func (s *set) checkNamespace(it *item) {
	ns := it.obj.Key.Namespace
	if ns == "" || ns == "default" || s.isRoot(ns) || s.namespaces[ns] || it.obj.Key.Kind == model.KindPod {
		return
	}
	s.warn(it, CodeMissingNamespace, "metadata.namespace", ns, "there is no Namespace "+ns+": it is made here, but Kubernetes would refuse the object", "add a Namespace object")
}
