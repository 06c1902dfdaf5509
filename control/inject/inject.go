package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	mesh "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
)

// MaxPod bounds a pod in bytes: what etcd takes.
const MaxPod = 3 << 20

// Result is what became of a pod.
type Result struct {
	// Pod is the pod with its proxy, as JSON; Patch (RFC 6902) makes it from the one that was given. Both are nil if nothing changed.
	Pod, Patch []byte
	// Injected tells whether this call put a proxy in; Why is the reason, for logs and `weft inject`.
	Injected bool
	Why      string
	// Warnings are for the author of the pod.
	Warnings []string
}

// request is one injection.
type request struct {
	c         *Config
	pod       *corev1.Pod // as it came
	namespace string
	owner     Owner
	proxy     *mesh.ProxyConfig
	warnings  []string

	gateway, native, hold, rewrites bool
	statusPort                      int32

	proxyJSON, probersJSON, scrapeJSON string
}

// Inject puts a proxy into the pod, if [Config.Required] says so and it has none. An error means that the pod must not be
// admitted: it asks for something that cannot be done.
func (c *Config) Inject(pod []byte, namespace string) (*Result, error) {
	return c.inject(pod, namespace, Owner{})
}

// inject is Inject for a pod whose owner is known already; the zero owner is found by the pod's metadata.
// leftOut warns where an author may expect a sidecar and there cannot be one.
func leftOut(p *corev1.Pod, d Decision) []string {
	if !p.Spec.HostNetwork || strings.EqualFold(p.Annotations[LabelInject], "false") {
		return nil
	}
	return []string{"the pod gets no sidecar: " + d.Why + "; the label " + LabelInject + "=false says that this is meant"}
}

func (c *Config) inject(pod []byte, namespace string, owner Owner) (*Result, error) {
	if len(pod) > MaxPod {
		return nil, fmt.Errorf("pod: %d bytes: at most %d", len(pod), MaxPod)
	}
	r := &request{c: c, pod: &corev1.Pod{}, namespace: namespace, owner: owner}
	if err := json.Unmarshal(pod, r.pod); err != nil {
		return nil, fmt.Errorf("pod: %w", err)
	}
	d := c.Required(r.pod, namespace)
	if d.Inject && injected(r.pod) {
		d = Decision{false, "it has its proxy"}
	}
	if !d.Inject {
		return &Result{Why: d.Why, Warnings: leftOut(r.pod, d)}, nil
	}
	old, err := decode(pod)
	if err != nil {
		return nil, err
	}
	now, err := r.run(pod)
	if err != nil {
		return nil, err
	}
	out := &Result{Injected: true, Why: d.Why, Warnings: r.warnings}
	if out.Patch, err = jsonPatch(old, now); err != nil {
		return nil, err
	}
	out.Pod, err = now.encode()
	return out, err
}

func (r *request) warn(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(r.warnings, s) {
		r.warnings = append(r.warnings, s)
	}
}

// injected tells whether a pod has been through this before: it says so, and has the container.
func injected(p *corev1.Pod) bool {
	if p.Annotations[annStatus] == "" {
		return false
	}
	named := func(c corev1.Container) bool { return c.Name == ContainerProxy }
	return slices.ContainsFunc(p.Spec.Containers, named) || slices.ContainsFunc(p.Spec.InitContainers, named)
}

// run makes the injected pod.
func (r *request) run(pod []byte) (document, error) {
	templates, err := r.prepare()
	if err != nil {
		return nil, err
	}
	edits, prom, err := r.handlers()
	if err != nil {
		return nil, err
	}
	d, err := decode(pod)
	if err != nil {
		return nil, err
	}
	var users []map[string]any // containers by which the author changes ours
	for _, name := range []string{ContainerProxy, ContainerInit, ContainerValidation} {
		if u := d.take(name); u != nil {
			users = append(users, u)
		}
	}
	for _, name := range templates {
		part, err := r.part(name)
		if err != nil {
			return nil, err
		}
		if d, err = d.merge(part); err != nil {
			return nil, fmt.Errorf("template %q: %w", name, err)
		}
	}
	for _, u := range users {
		if err := d.mergeContainer(u); err != nil {
			return nil, err
		}
	}
	if list, _ := d.find(ContainerProxy); list == "" { // templates without a proxy: nobody would answer
		edits, prom = nil, nil
	}
	for _, e := range edits {
		e.apply(d, r.statusPort)
	}
	r.order(d)
	return d, r.annotate(d, prom)
}

// prepare reads what the pod asks for.
func (r *request) prepare() (templates []string, err error) {
	if r.warnings, err = checkAnnotations(r.pod.Annotations); err != nil {
		return nil, err
	}
	if r.owner == (Owner{}) {
		r.owner = ownerOf(r.pod)
	}
	if templates, err = r.c.templates(r.pod); err != nil {
		return nil, err
	}
	r.gateway = slices.Contains(templates, templateGateway)
	if err := r.proxyConfig(); err != nil {
		return nil, err
	}
	a := r.pod.Annotations
	r.native = !r.gateway && truth(a, annNative, r.c.Proxy.NativeSidecars)
	r.hold = r.c.Proxy.Hold
	if h := r.proxy.GetHoldApplicationUntilProxyStarts(); h != nil {
		r.hold = h.GetValue()
	}
	r.rewrites = !r.gateway && truth(a, annRewrite, r.c.Proxy.RewriteProbes)
	r.sameUser()
	return templates, nil
}

// sameUser warns of containers that run as the proxy's user.
func (r *request) sameUser() {
	for _, c := range slices.Concat(r.pod.Spec.InitContainers, r.pod.Spec.Containers) {
		if s := c.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == proxyID && c.Name != ContainerProxy && !r.gateway {
			r.warn("container %s runs as user %d, which is the proxy's: its traffic passes by the mesh", c.Name, proxyID)
		}
	}
	if s := r.pod.Spec.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == proxyID && !r.gateway {
		r.warn("the pod runs as user %d, which is the proxy's: its traffic passes by the mesh", proxyID)
	}
}

// truth is an annotation that is true or false; it has been checked.
func truth(annotations map[string]string, name string, def bool) bool {
	if v, err := strconv.ParseBool(annotations[name]); err == nil {
		return v
	}
	return def
}

func (r *request) proxyConfig() error {
	over, warnings, err := parseProxyConfig(r.pod.Annotations[annProxyConfig])
	if err != nil {
		return fmt.Errorf("annotation %s: %w", annProxyConfig, err)
	}
	r.warnings = append(r.warnings, warnings...)
	r.proxy = mergeProxyConfig(r.c.Defaults, over)
	if err := checkNames(r.proxy.GetProxyMetadata()); err != nil { // what each of them says may be at odds
		return fmt.Errorf("annotation %s, and the mesh's defaultConfig: proxyMetadata.%w", annProxyConfig, err)
	}
	if r.proxy.DiscoveryAddress == "" {
		r.proxy.DiscoveryAddress = r.c.DiscoveryAddress
	}
	r.statusPort = r.c.Proxy.StatusPort
	if p := r.proxy.GetStatusPort(); p != 0 {
		r.statusPort = p
	}
	if v := r.pod.Annotations[annStatusPort]; v != "" {
		n, _ := strconv.ParseUint(v, 10, 16) // checked before
		r.statusPort = int32(n)
	}
	r.proxy.StatusPort = r.statusPort
	r.proxyJSON, err = proxyConfigJSON(r.proxy)
	return err
}

// handlers finds what the proxy has to do for kubelet and for Prometheus.
func (r *request) handlers() (edits []rewrite, prom map[string]string, err error) {
	if r.probersJSON, edits, err = r.rewriteProbes(); err != nil {
		return nil, nil, err
	}
	r.scrapeJSON, prom, err = r.prometheus()
	return edits, prom, err
}

// part is what one template adds, as JSON.
func (r *request) part(name string) ([]byte, error) {
	if _, custom := r.c.Templates[name]; custom {
		return r.render(name)
	}
	p, err := r.overlay()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	d, err := decode(b)
	if err != nil {
		return nil, err
	}
	delete(d, "status")
	delete(d.object("metadata"), "creationTimestamp")
	if len(p.Spec.Containers) == 0 {
		delete(d.object("spec"), "containers") // null would remove the application
	}
	for _, c := range d.containers("containers") {
		if c["name"] != ContainerProxy {
			delete(c, "resources") // always there in JSON, and not ours to say
		}
	}
	return d.encode()
}

// order puts the proxy where it belongs: a native one before everything that needs a network, the init container of a classic
// one after the application's own, which still have theirs (with a node agent they have none, and the check comes first); the application's container stays kubectl's first.
func (r *request) order(d document) {
	d.move("containers", ContainerProxy, r.hold && !r.gateway)
	d.move("initContainers", ContainerProxy, true)
	d.move("initContainers", ContainerInit, r.native)
	d.move("initContainers", ContainerValidation, true)
}

// status is the annotation by which an injected pod is known.
type status struct {
	InitContainers   []string `json:"initContainers"`
	Containers       []string `json:"containers"`
	Volumes          []string `json:"volumes"`
	ImagePullSecrets []string `json:"imagePullSecrets"`
	Revision         string   `json:"revision"`
}

// annotate adds what only the finished pod tells.
func (r *request) annotate(d document, prom map[string]string) error {
	meta := d.object("metadata")
	ann, _ := meta["annotations"].(map[string]any)
	if ann == nil {
		ann = map[string]any{}
		meta["annotations"] = ann
	}
	if len(prom) > 0 {
		maps.DeleteFunc(ann, func(k string, _ any) bool { return k == promPath || k == promPort || k == promScrape })
		for k, v := range prom {
			ann[k] = v
		}
	}
	s := status{Revision: r.c.revision(), ImagePullSecrets: r.c.Global.ImagePullSecrets}
	for _, name := range []string{ContainerInit, ContainerValidation, ContainerProxy} {
		switch list, _ := d.find(name); list {
		case "containers":
			s.Containers = append(s.Containers, name)
		case "initContainers":
			s.InitContainers = append(s.InitContainers, name)
		}
	}
	have, _ := d.object("spec")["volumes"].([]any)
	for _, v := range volumes() {
		if slices.ContainsFunc(have, func(x any) bool { m, ok := x.(map[string]any); return ok && m["name"] == v.Name }) {
			s.Volumes = append(s.Volumes, v.Name)
		}
	}
	b, err := json.Marshal(s)
	ann[annStatus] = string(b)
	return err
}

func (r *request) image() string { return or(r.pod.Annotations[annImage], r.c.image()) }
