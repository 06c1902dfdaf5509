package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/inject"
	"weft.mesh/weft/model"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask sends a request as the API server does.
func ask(t *testing.T, h http.Handler, path string, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	req.UID = "a-uid"
	b, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: "AdmissionReview"}, Request: req})
	check(t, err)
	w := send(t, h, http.MethodPost, path, "application/json; charset=utf-8", b)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var out admissionv1.AdmissionReview
	check(t, json.Unmarshal(w.Body.Bytes(), &out))
	if out.APIVersion != apiVersion || out.Kind != "AdmissionReview" || out.Response == nil || out.Response.UID != "a-uid" {
		t.Fatalf("answer: %s", w.Body)
	}
	return out.Response
}

func send(t *testing.T, h http.Handler, method, path, kind string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", kind)
	h.ServeHTTP(w, r)
	return w
}

func pod(meta string) *admissionv1.AdmissionRequest {
	return &admissionv1.AdmissionRequest{Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Operation: admissionv1.Create, Namespace: "shop",
		Object: runtime.RawExtension{Raw: []byte(`{"metadata":` + meta + `,"spec":{"containers":[{"name":"web","image":"web"}]}}`)}}
}

func newHandler(set Settings) *Handler {
	if set.Inject == nil {
		set.Inject = func() *inject.Config {
			return &inject.Config{Values: inject.DefaultValues(), DiscoveryAddress: "weft.weft-system.svc:15012"}
		}
	}
	return New(set)
}

func TestPodsAreInjected(t *testing.T) {
	h := newHandler(Settings{})
	r := ask(t, h, "/inject", pod(`{"generateName":"web-"}`))
	if !r.Allowed || r.PatchType == nil || *r.PatchType != admissionv1.PatchTypeJSONPatch || !strings.Contains(string(r.Patch), inject.ContainerProxy) {
		t.Errorf("answer: %+v", r)
	}
	r = ask(t, h, "/inject", pod(`{"generateName":"web-","annotations":{"sidecar.istio.io/statsInclusionPrefixes":"x"}}`))
	if !r.Allowed || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "statsInclusionPrefixes has no effect") {
		t.Errorf("answer: %+v", r)
	}
	r = ask(t, h, "/inject/cluster/c2/net/east", pod(`{"generateName":"web-"}`))
	if !r.Allowed || !strings.Contains(string(r.Patch), `"name":"ISTIO_META_CLUSTER_ID","value":"c2"`) || !strings.Contains(string(r.Patch), `"name":"ISTIO_META_NETWORK","value":"east"`) {
		t.Errorf("answer: %+v", r)
	}
}

func TestPodsAreLeftAlone(t *testing.T) {
	h := newHandler(Settings{})
	update := pod(`{}`)
	update.Operation = admissionv1.Update
	for name, req := range map[string]*admissionv1.AdmissionRequest{"one that says no": pod(`{"labels":{"sidecar.istio.io/inject":"false"}}`), "an update": update} {
		if r := ask(t, h, "/inject", req); !r.Allowed || r.Patch != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestPodsAreRefused(t *testing.T) {
	h := newHandler(Settings{})
	other := pod(`{}`)
	other.Kind.Kind = "Deployment"
	for _, tt := range []struct {
		name, path string
		req        *admissionv1.AdmissionRequest
		code       int32
		want       string
	}{
		{"an annotation", "/inject", pod(`{"annotations":{"sidecar.istio.io/interceptionMode":"TPROXY"}}`), 422, "only REDIRECT is supported"},
		{"another kind", "/inject", other, 400, "only pods are injected"},
		{"another path", "/inject/zone/a", pod(`{}`), 400, `"zone" is not known`},
		{"half a path", "/inject/cluster", pod(`{}`), 400, "want /inject/cluster/NAME"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ask(t, h, tt.path, tt.req)
			if r.Allowed || r.Result == nil || r.Result.Code != tt.code || !strings.Contains(r.Result.Message, tt.want) {
				t.Errorf("answer: %+v %+v", r, r.Result)
			}
		})
	}
	none := New(Settings{Inject: func() *inject.Config { return nil }})
	if r := ask(t, none, "/inject", pod(`{}`)); r.Allowed || r.Result.Code != http.StatusServiceUnavailable {
		t.Errorf("without configuration: %+v", r)
	}
}

func TestRequestsAreRead(t *testing.T) {
	h := newHandler(Settings{})
	good := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"`
	for _, tt := range []struct {
		name, method, kind, body string
		status                   int
	}{
		{"GET", "GET", "application/json", "", 405},
		{"another type", "POST", "text/plain", good + "}", 415},
		{"no type", "POST", "", good + "}", 415},
		{"no JSON", "POST", "application/json", "x", 400},
		{"no request", "POST", "application/json", good + "}", 400},
		{"another version", "POST", "application/json", `{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{}}`, 400},
		{"too much", "POST", "application/json", strings.Repeat(" ", maxBody+1), 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if w := send(t, h, tt.method, "/inject", tt.kind, []byte(tt.body)); w.Code != tt.status {
				t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
		})
	}
	if w := send(t, h, "POST", "/other", "application/json", nil); w.Code != http.StatusNotFound {
		t.Errorf("another path: %d", w.Code)
	}
}

func TestMetricsCount(t *testing.T) {
	h := newHandler(Settings{})
	ask(t, h, "/inject", pod(`{}`))
	ask(t, h, "/inject", pod(`{"labels":{"sidecar.istio.io/inject":"false"}}`))
	ask(t, h, "/inject", pod(`{"annotations":{"sidecar.istio.io/proxyCPU":"lots"}}`))
	send(t, h, "GET", "/validate", "", nil)
	reg := prometheus.NewRegistry()
	reg.MustRegister(h.Collectors()...)
	all, err := reg.Gather()
	check(t, err)
	got := map[string]float64{}
	for _, f := range all {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		if f.GetType() == dto.MetricType_UNTYPED {
			t.Errorf("%s has no type", f.GetName())
		}
	}
	for name, want := range map[string]float64{"sidecar_injection_requests_total": 3, "sidecar_injection_success_total": 1, "sidecar_injection_skip_total": 1,
		"sidecar_injection_failure_total": 1, "sidecar_injection_time_seconds": 3, "galley_validation_http_error": 1} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
}

// objects decodes files of YAML.
func objects(t *testing.T, paths ...string) []convert.Object {
	t.Helper()
	var out []convert.Object
	for _, p := range paths {
		b, err := os.ReadFile(p)
		check(t, err)
		o, ds := convert.Decode(admin.File{Name: p, Content: string(b)}, convert.Options{})
		if convert.HasErrors(ds) {
			t.Fatalf("%s: %+v", p, ds)
		}
		out = append(out, o...)
	}
	return out
}

const samples = "../../samples/bookinfo/"

// validator checks against the sample.
func validator(t *testing.T) *Handler {
	t.Helper()
	there := objects(t, samples+"platform/bookinfo.yaml", samples+"platform/ingress.yaml", samples+"platform/sleep.yaml", samples+"networking/bookinfo-gateway.yaml", samples+"networking/destination-rule-all.yaml")
	return New(Settings{
		Check: func(_ context.Context, changed []convert.Object) ([]admin.Diagnostic, error) {
			return analyze.Check(there, changed, nil, analyze.Options{}), nil
		},
	})
}

func write(t *testing.T, op admissionv1.Operation, old, now string) *admissionv1.AdmissionRequest {
	t.Helper()
	raw := func(s string) []byte {
		if s == "" {
			return nil
		}
		b, err := yaml.YAMLToJSON([]byte(s))
		check(t, err)
		return b
	}
	return &admissionv1.AdmissionRequest{Operation: op, Namespace: "default", Kind: metav1.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "VirtualService"},
		Name: "reviews", Object: runtime.RawExtension{Raw: raw(now)}, OldObject: runtime.RawExtension{Raw: raw(old)}}
}

const route = `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: reviews, namespace: default%s}, spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: %s}}]}]}}`

func TestObjectsAreValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := validator(t)
		good, bad := fmt.Sprintf(route, "", "v1"), fmt.Sprintf(route, "", "v9")
		worse := strings.Replace(good, "subset", "subsett", 1)
		for _, tt := range []struct {
			name string
			req  *admissionv1.AdmissionRequest
			want string
		}{
			{"a good one", write(t, admissionv1.Create, "", good), ""},
			{"a subset that is not there, which may come later", write(t, admissionv1.Create, "", bad), ""},
			{"a field that is not there", write(t, admissionv1.Create, "", strings.Replace(good, "subset", "subsett", 1)), "subsett"},
			{"a change to the worse", write(t, admissionv1.Update, good, strings.Replace(good, "subset", "subsett", 1)), "unknown-field"},
			{"a change of labels of one that was bad before", write(t, admissionv1.Update, worse, strings.Replace(worse, "name: reviews", "name: reviews, labels: {a: b}", 1)), ""},
			{"one that is about to go", write(t, admissionv1.Update, good, fmt.Sprintf(route, `, deletionTimestamp: "2026-01-01T00:00:00Z"`, "v9")), ""},
			{"a deletion", write(t, admissionv1.Delete, bad, ""), ""},
		} {
			r := ask(t, h, "/validate", tt.req)
			if r.Allowed != (tt.want == "") || tt.want != "" && !strings.Contains(r.Result.Message, tt.want) {
				t.Errorf("%s: %+v %+v", tt.name, r, r.Result)
			}
		}
		if r := ask(t, h, "/validate", write(t, admissionv1.Create, "", bad)); len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "v9") || !strings.Contains(r.Warnings[0], "unknown-subset") {
			t.Errorf("warnings %q", r.Warnings)
		}
	})
}

// An Ingress is ours by its class; what others serve is not ours to refuse, whatever it holds.
func TestIngressesAreRefusedIfTheyAreOurs(t *testing.T) {
	const text = `{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: x, namespace: default, finalizers: [example.com/x]}, spec: {ingressClassName: %s, %s}}`
	const regex = `rules: [{http: {paths: [{path: "/v[12]", pathType: ImplementationSpecific, backend: {service: {name: reviews, port: {number: 9080}}}}]}}]`
	synctest.Test(t, func(t *testing.T) {
		h := New(Settings{Check: func(_ context.Context, changed []convert.Object) ([]admin.Diagnostic, error) {
			class, ds := convert.Decode(admin.File{Content: `{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: weft}, spec: {controller: weft.mesh/ingress-controller}}`}, convert.Options{})
			if convert.HasErrors(ds) {
				t.Fatalf("%+v", ds)
			}
			return analyze.Check(append(class, objects(t, samples+"platform/bookinfo.yaml")...), changed, nil, analyze.Options{Mesh: model.Mesh{EndpointSlices: true}}), nil
		}})
		for _, c := range []struct{ class, spec, refused, warning string }{
			{"weft", regex, "invalid-regex", ""},
			{"nginx", regex, "", ""},
			{"weft", `defaultBackend: {resource: {kind: Bucket, name: b}}`, "unsupported-field", ""},
			{"nginx", `defaultBackend: {resource: {kind: Bucket, name: b}}`, "", ""},
			{"weft", `defaultBackend: {service: {name: later, port: {number: 80}}}`, "", "unknown-host"},
			{"weft", `tls: [{hosts: [a.example], secretName: later}], defaultBackend: {service: {name: reviews, port: {number: 9080}}}`, "", "unknown-secret"},
			{"nginx", `newField: 1`, "", ""},
		} {
			req := write(t, admissionv1.Create, "", fmt.Sprintf(text, c.class, c.spec))
			req.Kind, req.Name = metav1.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"}, "x"
			r := ask(t, h, "/validate", req)
			if r.Allowed != (c.refused == "") || c.refused != "" && !strings.Contains(r.Result.Message, c.refused) {
				t.Errorf("class %s, %s: %+v %+v", c.class, c.spec, r, r.Result)
			}
			if c.warning == "" && c.class == "nginx" && len(r.Warnings) > 0 || c.warning != "" && !strings.Contains(fmt.Sprint(r.Warnings), c.warning) {
				t.Errorf("class %s, %s: warnings %q, want %q", c.class, c.spec, r.Warnings, c.warning)
			}
		}
	})
}

// Who knows nothing yet lets nothing pass.
func TestValidationNeedsTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Settings{Check: func(context.Context, []convert.Object) ([]admin.Diagnostic, error) {
			return nil, errors.New("not known yet")
		}})
		if r := ask(t, h, "/validate", write(t, admissionv1.Create, "", fmt.Sprintf(route, "", "v1"))); r.Allowed || r.Result.Code != http.StatusServiceUnavailable {
			t.Errorf("without configuration: %+v", r)
		}
	})
}

// What weft apply refuses in a single object, the webhook refuses with the same text, but for references.
func TestBadInputsAreRefusedAsByApply(t *testing.T) {
	files, err := filepath.Glob("../analyze/testdata/bad/*.yaml")
	check(t, err)
	refused := 0
	synctest.Test(t, func(t *testing.T) {
		h := validator(t)
		for _, f := range files {
			b, err := os.ReadFile(f)
			check(t, err)
			if bytes.Contains(b, []byte("\n---")) {
				continue // several objects: one request is one
			}
			js, err := yaml.YAMLToJSON(b)
			if err != nil {
				continue // the API server would not have sent it
			}
			var o struct {
				Metadata metav1.ObjectMeta
			}
			if json.Unmarshal(js, &o) != nil {
				continue
			}
			ns := o.Metadata.Namespace
			if ns == "" {
				ns = "default"
			}
			// What apply says of the same bytes.
			objs, ds := convert.Decode(admin.File{Content: string(js)}, convert.Options{Namespace: ns})
			if len(objs) == 1 {
				more, err := h.set.Check(t.Context(), objs)
				check(t, err)
				ds = append(ds, more...)
			}
			for i := range ds {
				ds[i].File, ds[i].Line, ds[i].Column = "", 0, 0
				if references[ds[i].Code] { // a warning in a cluster
					ds[i].Severity = admin.SeverityWarning
				}
			}
			r := ask(t, h, "/validate", &admissionv1.AdmissionRequest{Operation: admissionv1.Create, Namespace: ns, Object: runtime.RawExtension{Raw: js}})
			if convert.HasErrors(ds) == r.Allowed {
				t.Errorf("%s: allowed %v, apply says %+v", f, r.Allowed, ds)
				continue
			}
			if !r.Allowed {
				refused++
				if r.Result.Message != Text(ds) {
					t.Errorf("%s:\nwebhook: %s\napply:   %s", f, r.Result.Message, Text(ds))
				}
			}
		}
	})
	t.Logf("%d of %d bad inputs are refused by the webhook", refused, len(files))
	if refused < 50 {
		t.Errorf("%d bad inputs are refused, want at least 50", refused)
	}
}
