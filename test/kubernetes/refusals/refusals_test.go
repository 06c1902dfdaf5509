// Package refusals_test holds what a cluster refuses against what `weft apply` refuses: the whole corpus of bad inputs goes
// to a real API server with our definitions and the chart's own webhooks, answered by control/admission.
//
// Of each input the outcome is written down: the text of local mode, or why there is another one (others.go). An input that is
// refused in other words than it says there fails the test as much as one that is taken.
package refusals_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/control/admission"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
	"weft.mesh/weft/test/kubernetes/apiserver"
)

const (
	corpus    = "../../../control/analyze/testdata/bad/*.yaml"
	samples   = "../../../samples/bookinfo/"
	namespace = "default"
)

// webhook is a control plane's answers: what was there before, and what the file's documents before this one have brought.
type webhook struct {
	mesh, class []convert.Object
	server      *httptest.Server

	mu     sync.Mutex
	before []convert.Object
}

func newWebhook(t *testing.T) *webhook {
	t.Helper()
	w := &webhook{}
	for _, f := range []string{"platform/bookinfo.yaml", "platform/ingress.yaml", "platform/sleep.yaml", "networking/bookinfo-gateway.yaml", "networking/destination-rule-all.yaml"} {
		w.mesh = append(w.mesh, decoded(t, samples+f)...)
	}
	w.class, _ = convert.Decode(admin.File{Content: `{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: weft}, spec: {controller: weft.mesh/ingress-controller}}`}, convert.Options{})
	if len(w.class) != 1 {
		t.Fatal("the IngressClass cannot be read")
	}
	handler := admission.New(admission.Settings{Check: func(_ context.Context, changed []convert.Object) ([]admin.Diagnostic, error) {
		return w.check(changed), nil
	}})
	w.server = httptest.NewTLSServer(handler)
	t.Cleanup(w.server.Close)
	return w
}

func decoded(t *testing.T, path string) []convert.Object {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	objs, ds := convert.Decode(admin.File{Name: path, Content: string(text)}, convert.Options{})
	if convert.HasErrors(ds) {
		t.Fatalf("%s: %+v", path, ds)
	}
	return objs
}

// check is the control plane's check in a cluster, where an Ingress is the mesh's by its class.
func (w *webhook) check(changed []convert.Object) []admin.Diagnostic {
	w.mu.Lock()
	there := slices.Concat(w.mesh, w.class, w.before)
	w.mu.Unlock()
	return analyze.Check(there, changed, nil, analyze.Options{Mesh: model.Mesh{EndpointSlices: true}})
}

// begin forgets what other files brought, taken keeps a document that the API server took.
func (w *webhook) begin() { w.mu.Lock(); w.before = nil; w.mu.Unlock() }

func (w *webhook) taken(js []byte) {
	objs, _ := convert.Decode(admin.File{Content: string(js)}, convert.Options{Namespace: namespace})
	w.mu.Lock()
	w.before = append(w.before, objs...)
	w.mu.Unlock()
}

// cluster is an API server, asked as kubectl asks it.
type cluster struct {
	dynamic  dynamic.Interface
	mapper   meta.RESTMapper
	warnings *warnings
}

type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	w.texts = append(w.texts, text)
	w.mu.Unlock()
}

func (w *warnings) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := strings.Join(w.texts, "\n")
	w.texts = nil
	return out
}

// start starts an API server that asks the webhook by the chart's configurations.
func start(t *testing.T, w *webhook) *cluster {
	t.Helper()
	s := apiserver.Start(t)
	conf, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{warnings: &warnings{}}
	conf.WarningHandler, conf.QPS = c.warnings, -1
	if c.dynamic, err = dynamic.NewForConfig(conf); err != nil {
		t.Fatal(err)
	}
	c.mapper = mapper(t, conf)
	account := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "default"}}}
	if _, err := c.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}).Namespace(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err) // without it no pod is taken, for a reason that a cluster does not have
	}
	for _, o := range configurations(t, w) {
		resource := schema.GroupVersionResource{Group: o.GroupVersionKind().Group, Version: "v1", Resource: strings.ToLower(o.GetKind()) + "s"}
		if _, err := c.dynamic.Resource(resource).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func mapper(t *testing.T, conf *rest.Config) meta.RESTMapper {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		t.Fatal(err)
	}
	return restmapper.NewDiscoveryRESTMapper(groups)
}

// configurations are those of the chart that ask about the mesh's objects, led to the webhook's address.
func configurations(t *testing.T, w *webhook) (out []*unstructured.Unstructured) {
	t.Helper()
	p, err := install.NewPlan(install.Config{Profile: "default", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.server.Certificate().Raw})
	for _, o := range p.Objects {
		if o.GetName() != "weft-validator" {
			continue
		}
		o := o.DeepCopy()
		hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
		for _, h := range hooks {
			hook := h.(map[string]any)
			hook["clientConfig"] = map[string]any{"url": w.server.URL + "/validate", "caBundle": ca}
		}
		b, err := json.Marshal(map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "metadata": map[string]any{"name": o.GetName()}, "webhooks": hooks})
		if err != nil {
			t.Fatal(err)
		}
		copied := &unstructured.Unstructured{}
		if err := copied.UnmarshalJSON(b); err != nil {
			t.Fatal(err)
		}
		out = append(out, copied)
	}
	return out
}

// create asks to make an object, and stores nothing: fields are checked as strictly as kubectl has them checked.
func (c *cluster) create(ctx context.Context, js []byte) error {
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(js, &u.Object); err != nil {
		return fmt.Errorf("not an object: %w", err)
	}
	switch { // what kubectl apply refuses itself
	case u.GetAPIVersion() == "":
		return errors.New("apiVersion not set")
	case u.GetKind() == "":
		return errors.New("kind not set")
	case u.GetName() == "" && u.GetGenerateName() != "":
		return errors.New("cannot use generate name with apply")
	case u.GetName() == "":
		return errors.New("resource name may not be empty")
	}
	m, err := c.mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
	if err != nil {
		return err
	}
	r := dynamic.ResourceInterface(c.dynamic.Resource(m.Resource))
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		ns := u.GetNamespace()
		if ns == "" {
			ns = namespace
			u.SetNamespace(ns) // as kubectl does
		}
		r = c.dynamic.Resource(m.Resource).Namespace(ns)
	}
	_, err = r.Create(ctx, u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	return err
}

// input is one bad input: what apply says of it, and what the cluster.
type input struct {
	name     string
	apply    string // errors of weft apply
	said     string // the cluster's refusal; "" if it took it
	asked    bool   // our webhook's words
	warnings string
}

// send applies a file's documents one by one, as kubectl does, until one is refused.
func send(t *testing.T, c *cluster, w *webhook, file string) input {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	in := input{name: strings.TrimSuffix(filepath.Base(file), ".yaml")}
	objs, ds := convert.Decode(admin.File{Name: file, Content: string(text)}, convert.Options{Namespace: namespace})
	w.begin()
	in.apply = withNamespace(admission.Text(append(ds, analyze.Check(w.mesh, objs, nil, analyze.Options{})...)))
	c.warnings.take()
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		js, err := yaml.YAMLToJSON(doc)
		if err == nil {
			err = c.create(t.Context(), js)
		}
		if err != nil {
			in.said, in.asked = withNamespace(err.Error()), strings.Contains(err.Error(), "denied the request")
			break
		}
		w.taken(js)
	}
	in.warnings = c.warnings.take()
	return in
}

// withNamespace makes "VirtualService x" and "VirtualService default/x" the same: kubectl has added the namespace by then.
func withNamespace(s string) string { return strings.ReplaceAll(s, " "+namespace+"/", " ") }

// same tells whether the cluster says all that apply says.
func (in input) same() bool { return in.said != "" && in.asked && strings.Contains(in.said, in.apply) }

func files(t *testing.T) []string {
	t.Helper()
	out, err := filepath.Glob(corpus)
	if err != nil || len(out) < 150 {
		t.Fatalf("%d bad inputs (%v)", len(out), err)
	}
	return out
}

func TestBadInputsAreRefusedInTheWordsOfApply(t *testing.T) {
	w := newWebhook(t)
	c := start(t, w)
	ready(t, c)
	t.Run("while a control plane answers", func(t *testing.T) { inTheWordsOfApply(t, c, w) })
	w.server.Close()
	t.Run("while nobody answers", func(t *testing.T) { whileNobodyAnswers(t, c, w) })
}

func inTheWordsOfApply(t *testing.T, c *cluster, w *webhook) {
	count := map[reason]int{}
	seen := map[string]bool{}
	for _, f := range files(t) {
		in := send(t, c, w, f)
		seen[in.name] = true
		want := others[in.name]
		count[want.why]++
		if err := want.holds(in); err != nil {
			t.Errorf("%s: %v\napply:\n%s\ncluster:\n%s\nwarnings:\n%s", in.name, err, in.apply, in.said, in.warnings)
		}
	}
	for name := range maps.Keys(others) {
		if !seen[name] {
			t.Errorf("others has %s, and the corpus has not", name)
		}
	}
	for _, o := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%3d %s", count[o], cmp.Or(o, "refused in the words of weft apply"))
	}
	text, err := os.ReadFile("../../../docs/kubernetes/refusals.md")
	if err != nil {
		t.Fatal(err)
	}
	for why, n := range count {
		if !bytes.Contains(text, fmt.Appendf(nil, "\n| %d | ", n)) {
			t.Errorf("docs/kubernetes/refusals.md has no line of %d files: %s", n, cmp.Or(why, "the text of apply"))
		}
	}
}

// ready waits until the API server asks the webhooks, a moment after it stored their configurations.
func ready(t *testing.T, c *cluster) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for _, bad := range []string{
		`{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"x"},"spec":{"hosts":"x"}}`, // early
		`{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"x"},"spec":{"hosts":["x"],"http":[{"route":[]}]}}`,
	} {
		for {
			err := c.create(t.Context(), []byte(bad))
			if err != nil && (strings.Contains(err.Error(), "denied the request") || strings.Contains(err.Error(), "failed calling webhook")) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the webhooks are not asked: %v", err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// Without a control plane nothing of it is taken either: what the definitions let pass, the API server does not
// take without having asked. Only Ingresses, which others serve as well, wait for nobody.
func whileNobodyAnswers(t *testing.T, c *cluster, w *webhook) {
	definitions := 0
	for _, f := range files(t) {
		in := send(t, c, w, f)
		if others[in.name].why != sameText {
			continue // our webhook has no part in it
		}
		switch {
		case strings.HasPrefix(in.name, "ingress-"):
			if in.said != "" {
				t.Errorf("%s is refused: %s", in.name, in.said)
			}
		case in.said == "":
			t.Errorf("%s is taken", in.name)
		case !strings.Contains(in.said, "failed calling webhook"):
			definitions++
		}
	}
	t.Logf("%d are refused by the definitions alone", definitions)
	if definitions == 0 {
		t.Error("the definitions refuse nothing")
	}
}
