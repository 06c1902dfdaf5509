package local

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/local/pod"
	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/local/rollout"
	"weft.mesh/weft/local/services"
	"weft.mesh/weft/node/capture"
)

// watchedKinds are the objects that decide what runs.
var watchedKinds = []string{"Deployment", "Namespace", "Service"}

// settle lets changes that come together be handled together.
const settle = 5 * time.Millisecond

// key names a namespaced thing.
type key struct{ namespace, name string }

// manager makes the pods match the Deployments. One goroutine, that of run,
// decides; the others only store what they learned and wake it.
type manager struct {
	env  *pod.Env
	log  *slog.Logger
	wake chan struct{} // something changed

	mu         sync.Mutex // protects the following
	specs      map[key]podspec.Spec
	refused    map[key]string               // why a Deployment does not run as written
	digests    map[key]string               // of the Deployments as written
	namespaces map[string]map[string]string // labels
	services   []services.Service
	names      map[string][]string
	restarts   map[key]int
	pods       map[key]*pod.Pod
	ordinal    uint64
	ending     bool

	rules string // run only: text of the service rules in force
}

func newManager(env *pod.Env, log *slog.Logger) *manager {
	return &manager{env: env, log: log, wake: make(chan struct{}, 1), specs: map[key]podspec.Spec{}, refused: map[key]string{},
		restarts: map[key]int{}, pods: map[key]*pod.Pod{}}
}

func (m *manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// setObjects takes over what the control plane holds.
func (m *manager) setObjects(objects client.Objects) {
	specs, refused, digests := map[key]podspec.Spec{}, map[key]string{}, map[key]string{}
	namespaces := map[string]map[string]string{}
	var svcs []services.Service
	for ref, o := range objects {
		switch ref.Kind {
		case "Deployment":
			k := key{ref.Namespace, ref.Name}
			digests[k] = admin.Digest(o)
			spec, err := parseDeployment(o)
			if err != nil {
				refused[k] = err.Error()
				continue
			}
			specs[k] = spec
		case "Namespace":
			namespaces[ref.Name] = namespaceLabels(o)
		case "Service":
			s, err := services.Parse(o.Raw)
			if err != nil {
				m.log.Error("service is left out", "namespace", ref.Namespace, "name", ref.Name, "error", err)
				continue
			}
			s.Namespace, s.Name = ref.Namespace, ref.Name
			svcs = append(svcs, s)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, why := range refused {
		if old, ok := m.specs[k]; ok {
			specs[k] = old // the last good one keeps running
		}
		if m.refused[k] != why {
			m.log.Error("deployment does not run as written", "namespace", k.namespace, "name", k.name, "error", why)
		}
	}
	m.specs, m.refused, m.digests, m.namespaces, m.services = specs, refused, digests, namespaces, svcs
	m.poke()
}

func parseDeployment(o admin.Object) (podspec.Spec, error) {
	var d appsv1.Deployment
	if err := json.Unmarshal(o.Raw, &d); err != nil {
		return podspec.Spec{}, fmt.Errorf("read Deployment: %w", err)
	}
	d.Namespace, d.Name = o.Namespace, o.Name
	spec, problems := podspec.Parse(&d)
	if len(problems) > 0 {
		var lines []string
		for _, p := range problems {
			lines = append(lines, p.Error())
		}
		return podspec.Spec{}, fmt.Errorf("%s", strings.Join(lines, "; "))
	}
	return spec, nil
}

func namespaceLabels(o admin.Object) map[string]string {
	var ns corev1.Namespace
	if json.Unmarshal(o.Raw, &ns) != nil {
		return nil
	}
	return ns.Labels
}

// setNames takes over the table of names.
func (m *manager) setNames(t admin.NameTable) {
	m.mu.Lock()
	m.names = t.Names
	m.mu.Unlock()
	m.poke()
}

// run makes pods match until ctx ends, then ends all pods and returns.
func (m *manager) run(ctx context.Context) {
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-m.wake:
		case <-ctx.Done():
			m.endAll()
			return
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
		if ctx.Err() == nil {
			m.reconcile(func(p *pod.Pod) {
				wg.Go(func() {
					p.Run(life)
					m.forget(p)
				})
			})
			m.translate()
		}
	}
}

func (m *manager) endAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ending = true
	for _, p := range m.pods {
		p.Hurry()
	}
}

func (m *manager) forget(p *pod.Pod) {
	m.mu.Lock()
	delete(m.pods, key{p.Namespace(), p.Name()})
	m.mu.Unlock()
	m.poke()
}

// reconcile makes and ends pods; start runs a new one.
func (m *manager) reconcile(start func(*pod.Pod)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.podsByDeployment()
	for d, pods := range have {
		if _, ok := m.specs[d]; !ok {
			for _, p := range pods {
				m.pods[key{d.namespace, p.Name}].Stop()
			}
		}
	}
	for _, d := range slices.SortedFunc(maps.Keys(m.specs), compareKeys) {
		spec := m.specs[d]
		hash := m.hash(d, spec)
		steps := rollout.Next(rollout.Want{Hash: hash, Replicas: spec.Replicas, Recreate: spec.Strategy.Recreate,
			MaxSurge: spec.Strategy.MaxSurge, MaxUnavailable: spec.Strategy.MaxUnavailable}, have[d])
		for _, name := range steps.End {
			m.pods[key{d.namespace, name}].Stop()
		}
		for range steps.Create {
			p, err := m.newPod(spec, hash)
			if err != nil {
				m.log.Error("pod cannot be made", "namespace", d.namespace, "deployment", d.name, "error", err)
				time.AfterFunc(time.Second, m.poke)
				break
			}
			m.pods[key{p.Namespace(), p.Name()}] = p
			start(p)
		}
	}
}

// podsByDeployment is what a decision needs to know of all pods; mu is held.
func (m *manager) podsByDeployment() map[key][]rollout.Pod {
	have := map[key][]rollout.Pod{}
	for _, p := range m.pods {
		d := key{p.Namespace(), p.Deployment()}
		have[d] = append(have[d], rollout.Pod{Name: p.Name(), Hash: p.Hash(), Ready: p.Status().Ready, Ending: p.Ending(), Ordinal: p.Ordinal()})
	}
	return have
}

// rollouts says of each Deployment whether its pods are as it wants them, sorted.
func (m *manager) rollouts() []admin.Rollout {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.podsByDeployment()
	var out []admin.Rollout
	for _, d := range slices.SortedFunc(maps.Keys(m.digests), compareKeys) {
		r := admin.Rollout{Namespace: d.namespace, Deployment: d.name, Object: m.digests[d], Message: m.refused[d]}
		spec, ok := m.specs[d]
		r.Done = ok && r.Message == "" && rollout.Done(m.hash(d, spec), spec.Replicas, have[d])
		out = append(out, r)
	}
	return out
}

// hash names the pods of a template; a restart asked for makes another one.
func (m *manager) hash(d key, spec podspec.Spec) string {
	if n := m.restarts[d]; n > 0 {
		return podspec.Hash(fmt.Sprint(spec.Hash, " restart ", n))
	}
	return spec.Hash
}

func (m *manager) newPod(spec podspec.Spec, hash string) (*pod.Pod, error) {
	m.ordinal++
	return pod.New(m.env, pod.Config{
		Name: spec.Name + "-" + hash + "-" + podspec.Hash(rand.Text())[:5], Ordinal: m.ordinal, Spec: spec, Hash: hash,
		Sidecar: spec.HasSidecar(m.namespaces[spec.Namespace]), Services: m.serviceRules(), OnChange: m.poke,
	})
}

func compareKeys(a, b key) int {
	if c := strings.Compare(a.namespace, b.namespace); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}

// captured tells whether an address is a pod's whose sidecar takes its connections.
func (m *manager) captured(a netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pods {
		if ip, ok := p.IP(); ok && ip == a {
			return p.Captured()
		}
	}
	return false
}

// serviceRules is the translation of service addresses as things are now.
func (m *manager) serviceRules() capture.Ruleset {
	var ready []services.Pod
	for _, p := range m.pods {
		if ip, ok := p.IP(); ok && p.Status().Ready {
			ready = append(ready, services.Pod{Namespace: p.Namespace(), IP: ip, Labels: p.Labels(), NamedPort: p.NamedPort})
		}
	}
	return capture.PlanServices(services.Plan(m.services, m.names, m.env.Domain, ready))
}

// translate installs the service rules in all pods when they changed.
func (m *manager) translate() {
	m.mu.Lock()
	rules := m.serviceRules()
	pods := slices.Collect(maps.Values(m.pods))
	m.mu.Unlock()
	text := rules.String()
	if text == m.rules {
		return
	}
	m.rules = text
	for _, p := range pods {
		if err := p.SetServices(rules); err != nil {
			m.log.Error("service addresses are not up to date in a pod", "namespace", p.Namespace(), "pod", p.Name(), "error", err)
		}
	}
}

// list is what `weft ps` shows, sorted.
func (m *manager) list() []*pod.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Collect(maps.Values(m.pods))
	slices.SortFunc(out, func(a, b *pod.Pod) int {
		return compareKeys(key{a.Namespace(), a.Name()}, key{b.Namespace(), b.Name()})
	})
	return out
}

// find returns a pod by its name, or a pod of a Deployment by "deployment/NAME":
// a ready one if there is any.
func (m *manager) find(namespace, name string) (*pod.Pod, error) {
	if namespace == "" {
		namespace = "default"
	}
	deployment, byDeployment := strings.CutPrefix(name, "deployment/")
	if !byDeployment {
		deployment, byDeployment = strings.CutPrefix(name, "deploy/")
	}
	var found *pod.Pod
	for _, p := range m.list() {
		if p.Namespace() != namespace {
			continue
		}
		if !byDeployment && p.Name() == name {
			return p, nil
		}
		if byDeployment && p.Deployment() == deployment && (found == nil || better(p, found)) {
			found = p
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no pod %q in namespace %q runs here", name, namespace)
	}
	return found, nil
}

// better prefers pods that serve.
func better(a, b *pod.Pod) bool {
	if a.Ending() != b.Ending() {
		return b.Ending()
	}
	return a.Status().Ready && !b.Status().Ready
}

// restartDeployment replaces a Deployment's pods one after the other.
func (m *manager) restartDeployment(d key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.specs[d]; !ok {
		return fmt.Errorf("no deployment %q in namespace %q runs here", d.name, d.namespace)
	}
	m.restarts[d]++
	m.poke()
	return nil
}
