// Package kubetest is an API server in memory for tests: it lists, watches,
// creates, updates, patches and deletes objects as JSON over real HTTP, so that
// client-go's own code runs against it. It can go away and come back, forget
// its history (410), forbid a resource, and install a CRD late.
//
// It validates nothing and knows no defaults: what only a real API server does
// is tested against a real one.
package kubetest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Object is an object as JSON has it.
type Object = map[string]any

// Server is one API server. Safe for concurrent use.
type Server struct {
	addr string

	mu        sync.Mutex // protects the following
	http      *http.Server
	revision  int64
	resources map[string]*resource // by group/version/plural; core is v1/plural
	forbidden map[string]bool
	reviews   func(token string, audiences []string) Object // the status of a TokenReview
	access    func(user, namespace, verb, resource string) bool
	requests  []string // method and path, of writes
	changed   chan struct{}
}

type resource struct {
	key, kind  string
	namespaced bool
	objects    map[string]Object // by namespace/name
	watchers   map[*watcher]bool
}

type watcher struct {
	ns     string
	events chan Object
	gone   chan struct{}
}

// Start makes a server that holds the built-in kinds and stops with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{addr: l.Addr().String(), resources: map[string]*resource{}, forbidden: map[string]bool{}}
	for _, r := range []struct {
		key, kind  string
		namespaced bool
	}{
		{"v1/namespaces", "Namespace", false}, {"v1/nodes", "Node", false}, {"v1/services", "Service", true}, {"v1/pods", "Pod", true},
		{"v1/secrets", "Secret", true}, {"v1/configmaps", "ConfigMap", true}, {"discovery.k8s.io/v1/endpointslices", "EndpointSlice", true},
		{"v1/serviceaccounts", "ServiceAccount", true}, {"v1/events", "Event", true}, {"apps/v1/deployments", "Deployment", true}, {"apps/v1/statefulsets", "StatefulSet", true},
		{"autoscaling/v2/horizontalpodautoscalers", "HorizontalPodAutoscaler", true}, {"policy/v1/poddisruptionbudgets", "PodDisruptionBudget", true},
		{"coordination.k8s.io/v1/leases", "Lease", true}, {"networking.k8s.io/v1/ingresses", "Ingress", true}, {"networking.k8s.io/v1/ingressclasses", "IngressClass", false},
		{"admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", "MutatingWebhookConfiguration", false},
		{"admissionregistration.k8s.io/v1/validatingwebhookconfigurations", "ValidatingWebhookConfiguration", false},
		{"apiextensions.k8s.io/v1/customresourcedefinitions", "CustomResourceDefinition", false},
	} {
		s.add(r.key, r.kind, r.namespaced)
	}
	s.serve(l)
	t.Cleanup(s.Down)
	return s
}

// Config is how clients reach the server.
func (s *Server) Config() *rest.Config {
	return &rest.Config{Host: "http://" + s.addr, QPS: 1000, Burst: 1000}
}

func (s *Server) add(key, kind string, namespaced bool) {
	s.resources[key] = &resource{key: key, kind: kind, namespaced: namespaced, objects: map[string]Object{}, watchers: map[*watcher]bool{}}
}

func (s *Server) serve(l net.Listener) {
	h := &http.Server{Handler: s}
	s.mu.Lock()
	s.http = h
	s.mu.Unlock()
	go func() { _ = h.Serve(l) }()
}

// Down closes the server and all its connections. What it holds stays.
func (s *Server) Down() {
	s.mu.Lock()
	h := s.http
	s.http = nil
	s.mu.Unlock()
	if h != nil {
		_ = h.Close()
	}
}

// Up serves again at the same address.
func (s *Server) Up(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		l, err := net.Listen("tcp", s.addr)
		if err == nil {
			s.serve(l)
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// Install adds a custom resource: its group version, plural and kind, and the object that says so.
func (s *Server) Install(groupVersion, plural, kind string, namespaced bool) {
	group, _, _ := strings.Cut(groupVersion, "/")
	s.mu.Lock()
	if s.resources[groupVersion+"/"+plural] == nil {
		s.add(groupVersion+"/"+plural, kind, namespaced)
	}
	s.mu.Unlock()
	s.Put("apiextensions.k8s.io/v1/customresourcedefinitions", Object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": Object{"name": plural + "." + group}})
}

// Uninstall removes a custom resource and its objects.
func (s *Server) Uninstall(groupVersion, plural string) {
	group, _, _ := strings.Cut(groupVersion, "/")
	s.mu.Lock()
	r := s.resources[groupVersion+"/"+plural]
	delete(s.resources, groupVersion+"/"+plural)
	for w := range r.watchers {
		close(w.gone)
	}
	r.watchers = map[*watcher]bool{}
	s.mu.Unlock()
	s.Delete("apiextensions.k8s.io/v1/customresourcedefinitions", "", plural+"."+group)
}

// Forbid answers everything about a resource with 403, or no longer.
func (s *Server) Forbid(key string, forbidden bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbidden[key] = forbidden
	if forbidden {
		for w := range s.resources[key].watchers {
			close(w.gone)
		}
		s.resources[key].watchers = map[*watcher]bool{}
	}
}

// Access answers SubjectAccessReviews; resource is group/plural. Without it nobody may do anything.
func (s *Server) Access(f func(user, namespace, verb, resource string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access = f
}

// Reviews answers TokenReviews.
func (s *Server) Reviews(f func(token string, audiences []string) Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reviews = f
}

// Writes lists the requests that were no reads, as "PUT /api/v1/…".
func (s *Server) Writes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// Watchers is the number of open watches of a resource.
func (s *Server) Watchers(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.resources[key]; r != nil {
		return len(r.watchers)
	}
	return 0
}

// Put adds or replaces an object, as somebody else would. The same again changes nothing.
func (s *Server) Put(key string, o Object) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store(s.resources[key], clone(o))
}

// Get returns an object; nil if there is none.
func (s *Server) Get(key, ns, name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.resources[key].objects[ns+"/"+name]; o != nil {
		return clone(o)
	}
	return nil
}

// Delete removes an object.
func (s *Server) Delete(key, ns, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(s.resources[key], ns+"/"+name)
}

func clone(o Object) Object {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var out Object
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

func meta(o Object) Object {
	m, _ := o["metadata"].(Object)
	if m == nil {
		m = Object{}
		o["metadata"] = m
	}
	return m
}

func text(m Object, key string) string {
	v, _ := m[key].(string)
	return v
}

// store keeps a new version and tells watchers. mu is held.
func (s *Server) store(r *resource, o Object) Object {
	m := meta(o)
	id := text(m, "namespace") + "/" + text(m, "name")
	old, typ := r.objects[id], "ADDED"
	if old != nil {
		typ = "MODIFIED"
		for _, k := range []string{"uid", "creationTimestamp", "generation"} {
			m[k] = meta(old)[k]
		}
		m["resourceVersion"] = meta(old)["resourceVersion"]
		if a, b := mustJSON(old), mustJSON(o); a == b {
			return old
		}
		if mustJSON(old["spec"]) != mustJSON(o["spec"]) {
			g, _ := m["generation"].(float64)
			m["generation"] = g + 1
		}
	} else {
		m["uid"], m["creationTimestamp"], m["generation"] = "uid-"+strconv.FormatInt(s.revision+1, 10), "2026-11-01T00:00:00Z", float64(1)
	}
	s.revision++
	m["resourceVersion"] = strconv.FormatInt(s.revision, 10)
	if o["kind"] == nil {
		o["kind"] = r.kind
	}
	r.objects[id] = o
	s.tell(r, typ, o)
	return o
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (s *Server) remove(r *resource, id string) bool {
	o := r.objects[id]
	if o == nil {
		return false
	}
	delete(r.objects, id)
	s.revision++
	o = clone(o)
	meta(o)["resourceVersion"] = strconv.FormatInt(s.revision, 10)
	s.tell(r, "DELETED", o)
	return true
}

// Changed is closed with the next change of an object, whoever makes it. Ask for it before looking.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// tell sends an object's change to those who watch it. mu is held.
func (s *Server) tell(r *resource, typ string, o Object) {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	for w := range r.watchers {
		if w.ns != "" && w.ns != text(meta(o), "namespace") {
			continue
		}
		select {
		case w.events <- Object{"type": typ, "object": clone(o)}:
		default: // too slow: as a real server does, it has to begin again
			close(w.gone)
			delete(r.watchers, w)
		}
	}
}

func status(code int, reason, message string) Object {
	return Object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message}
}

func answer(w http.ResponseWriter, code int, v Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, code int, reason, format string, args ...any) {
	answer(w, code, status(code, reason, fmt.Sprintf(format, args...)))
}
