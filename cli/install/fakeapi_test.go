package install

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	sigsyaml "sigs.k8s.io/yaml"

	"weft.mesh/weft/cli/kube"
)

// fakeAPI is as much of an API server as an install sees: objects by path,
// server-side apply (maps merged, lists replaced), label selectors, dry run,
// access reviews, and controllers that make what is written ready at once.
type fakeAPI struct {
	mu      sync.Mutex // protects the following
	objects map[string]map[string]any
	writes  []string // "PATCH /apis/…" in order
	version int

	// Set before use.
	deny    func(verb, resource string) bool
	answer  func(r *http.Request) (status int, body any) // instead of what follows; 0 is none
	noReady bool                                         // Deployments never become ready
	noCA    bool                                         // nobody fills in caBundles
}

func newFake(t *testing.T) (*fakeAPI, *Installer, *[]string) {
	t.Helper()
	f := &fakeAPI{objects: map[string]map[string]any{}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	c, err := kube.New("test", "default", &rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	return f, &Installer{Cluster: c, Wait: true, Poll: time.Millisecond, Timeout: time.Minute, Progress: func(l string) { lines = append(lines, l) }}, &lines
}

// path takes a request's path apart.
type apiPath struct{ prefix, resource, name string } // prefix is up to the resource

func parsePath(p string) (a apiPath) {
	parts := strings.Split(strings.Trim(p, "/"), "/")
	n := 2 // api/v1
	if parts[0] == "apis" {
		n = 3
	}
	if len(parts) > n+2 && parts[n] == "namespaces" {
		n += 2
	}
	n = min(n, len(parts))
	a.prefix = strings.Join(parts[:n], "/")
	if len(parts) > n {
		a.resource = parts[n]
	}
	if len(parts) > n+1 {
		a.name = parts[n+1]
	}
	return a
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer != nil {
		if status, body := f.answer(r); status != 0 {
			reply(w, status, body)
			return
		}
	}
	a := parsePath(r.URL.Path)
	dry := r.URL.Query().Get("dryRun") != ""
	key := "/" + a.prefix + "/" + a.resource + "/" + a.name
	switch {
	case r.URL.Path == "/version":
		reply(w, 200, map[string]string{"gitVersion": "v1.34.4", "major": "1", "minor": "34"})
	case a.resource == "selfsubjectaccessreviews":
		f.review(w, r)
	case r.Method == http.MethodGet && a.name == "":
		f.list(w, r, a)
	case f.unknown(a):
		reply(w, 404, status(404, "NotFound", "the server could not find the requested resource"))
	case r.Method == http.MethodGet:
		if o, ok := f.objects[key]; ok {
			reply(w, 200, o)
		} else {
			reply(w, 404, status(404, "NotFound", a.resource+" \""+a.name+"\" not found"))
		}
	case r.Method == http.MethodPatch:
		f.patch(w, r, key, a, dry)
	case r.Method == http.MethodDelete:
		if _, ok := f.objects[key]; !ok {
			reply(w, 404, status(404, "NotFound", "not found"))
			return
		}
		if !dry {
			f.writes = append(f.writes, "DELETE "+key)
			delete(f.objects, key)
		}
		reply(w, 200, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	default:
		reply(w, 405, status(405, "MethodNotAllowed", r.Method))
	}
}

// unknown tells whether a path is of a custom kind without a definition.
func (f *fakeAPI) unknown(a apiPath) bool {
	return strings.HasPrefix(a.prefix, "apis/gateway.networking.k8s.io/") &&
		f.objects["/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+a.resource+".gateway.networking.k8s.io"] == nil
}

func (f *fakeAPI) review(w http.ResponseWriter, r *http.Request) {
	var o unstructured.Unstructured
	b, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(b, &o.Object)
	verb, _, _ := unstructured.NestedString(o.Object, "spec", "resourceAttributes", "verb")
	resource, _, _ := unstructured.NestedString(o.Object, "spec", "resourceAttributes", "resource")
	o.Object["status"] = map[string]any{"allowed": f.deny == nil || !f.deny(verb, resource)}
	reply(w, 201, o.Object)
}

func (f *fakeAPI) list(w http.ResponseWriter, r *http.Request, a apiPath) {
	sel, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		reply(w, 400, status(400, "BadRequest", err.Error()))
		return
	}
	items := []any{}
	for _, k := range slices.Sorted(maps.Keys(f.objects)) {
		o := unstructured.Unstructured{Object: f.objects[k]}
		at := k
		if !strings.Contains(a.prefix, "/namespaces/") { // of all namespaces
			at = inNamespace.ReplaceAllString(k, "/")
		}
		if strings.HasPrefix(at, "/"+a.prefix+"/"+a.resource+"/") && sel.Matches(labels.Set(o.GetLabels())) {
			items = append(items, o.Object)
		}
	}
	reply(w, 200, map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": "1"}, "items": items})
}

var inNamespace = regexp.MustCompile("/namespaces/[^/]+/")

func (f *fakeAPI) patch(w http.ResponseWriter, r *http.Request, key string, a apiPath, dry bool) {
	b, _ := io.ReadAll(r.Body)
	var in map[string]any
	if err := sigsyaml.Unmarshal(b, &in); err != nil {
		reply(w, 400, status(400, "BadRequest", err.Error()))
		return
	}
	old := f.objects[key]
	now := merged(old, in)
	o := unstructured.Unstructured{Object: now}
	if o.GetUID() == "" {
		o.SetUID("1")
	}
	o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: r.URL.Query().Get("fieldManager"), Operation: "Apply"}})
	f.controllers(&o, a.resource)
	if old == nil || !reflect.DeepEqual(normal(old), normal(now)) {
		f.version++
		o.SetResourceVersion(fmt.Sprint(f.version))
		if !dry {
			f.writes = append(f.writes, "PATCH "+key)
		}
	}
	if !dry {
		f.objects[key] = normal(now)
	}
	reply(w, 200, now)
}

// controllers do what the cluster does with an object.
func (f *fakeAPI) controllers(o *unstructured.Unstructured, resource string) {
	switch resource {
	case "customresourcedefinitions":
		o.Object["status"] = map[string]any{"conditions": []any{
			map[string]any{"type": "NamesAccepted", "status": "True"}, map[string]any{"type": "Established", "status": "True"},
		}}
	case "deployments":
		if n, ok, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas"); ok && !f.noReady {
			o.Object["status"] = map[string]any{"replicas": n, "updatedReplicas": n, "availableReplicas": n}
		} else if !f.noReady {
			o.Object["status"] = map[string]any{"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
		}
	case "mutatingwebhookconfigurations", "validatingwebhookconfigurations":
		hooks, _, _ := unstructured.NestedSlice(normal(o.Object), "webhooks")
		for _, h := range hooks {
			if !f.noCA {
				_ = unstructured.SetNestedField(h.(map[string]any), "Q0E=", "clientConfig", "caBundle")
			}
		}
		o.Object["webhooks"] = hooks
	}
}

func merged(old, in map[string]any) map[string]any {
	out := maps.Clone(old)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range in {
		a, okA := out[k].(map[string]any)
		b, okB := v.(map[string]any)
		if okA && okB {
			v = merged(a, b)
		}
		out[k] = v
	}
	return out
}

// normal is a deep copy with the types that JSON has.
func normal(o map[string]any) map[string]any {
	b, _ := json.Marshal(o)
	u := unstructured.Unstructured{}
	_ = json.Unmarshal(b, &u.Object)
	return u.Object
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func status(code int, reason, msg string) map[string]any {
	return map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": msg}
}

// put stores an object as somebody else would have made it.
func (f *fakeAPI) put(path, text string) {
	var o map[string]any
	if err := sigsyaml.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	u := unstructured.Unstructured{Object: o}
	if u.GetKind() == "" { // of no matter, but there must be one
		u.SetKind("Some")
		u.SetAPIVersion("v1")
	}
	u.SetUID("x")
	u.SetResourceVersion("1")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[path] = normal(o)
}

func (f *fakeAPI) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.writes
	f.writes = nil
	return w
}
