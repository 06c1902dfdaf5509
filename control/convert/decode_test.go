package convert_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

var update = flag.Bool("update", false, "rewrite golden files")

func decode(text string, opts convert.Options) ([]convert.Object, []admin.Diagnostic) {
	return convert.Decode(admin.File{Name: "in.yaml", Content: text}, opts)
}

const account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: %s\n"

func TestDocumentsAreReadOneByOne(t *testing.T) {
	text := "# a comment first\n---\n" + fmt.Sprintf(account, "a") + "---\n# nothing here\n---\nkind: [\n---\r\n" + fmt.Sprintf(account, "b") + "...\n"
	objs, diags := decode(text, convert.Options{})
	if len(objs) != 2 || objs[0].Key.Name != "a" || objs[1].Key.Name != "b" {
		t.Errorf("objects: %v", objs)
	}
	if len(diags) != 1 || diags[0].Code != convert.CodeInvalidYAML || diags[0].Line < 9 || diags[0].Line > 10 {
		t.Errorf("diagnostics: %+v", diags)
	}
	if line, col := objs[1].Position("metadata.name"); line != 15 || col != 9 {
		t.Errorf("b's name is at %d:%d, want 15:9", line, col)
	}
}

func TestJSONAndByteOrderMarksAreRead(t *testing.T) {
	objs, diags := decode("\ufeff{\"apiVersion\": \"v1\", \"kind\": \"ServiceAccount\", \"metadata\": {\"name\": \"a\", \"labels\": {\"x\": \"<&>\u2028\"}}}", convert.Options{})
	if len(objs) != 0 || len(diags) != 1 || diags[0].Code != convert.CodeInvalidLabel {
		t.Errorf("%v %+v", objs, diags)
	}
	objs, diags = decode("\ufeff{\"apiVersion\": \"v1\", \"kind\": \"ServiceAccount\", \"metadata\": {\"name\": \"a\", \"annotations\": {\"x\": \"<&>\u2028\\n\"}}}", convert.Options{})
	if len(objs) != 1 || len(diags) != 0 || objs[0].Meta.Annotations["x"] != "<&>\u2028\n" {
		t.Fatalf("%v %+v", objs, diags)
	}
	again, diags := convert.DecodeStored(objs[0].Raw, "store", convert.Options{})
	if len(diags) != 0 || again.Meta.Annotations["x"] != "<&>\u2028\n" || string(again.Raw) != string(objs[0].Raw) {
		t.Errorf("the raw form does not read the same: %+v %s", diags, again.Raw)
	}
}

func TestAListIsTakenApart(t *testing.T) {
	text := "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: a}\n- apiVersion: v1\n  kind: NetworkPolicy\n  metadata: {name: b}\n"
	objs, diags := decode(text, convert.Options{})
	if len(objs) != 1 || len(diags) != 1 || diags[0].Line != 8 || diags[0].Code != convert.CodeUnknownKind {
		t.Errorf("%v %+v", objs, diags)
	}
}

func TestAnObjectWithoutANamespaceGetsTheOneAsked(t *testing.T) {
	objs, _ := decode(fmt.Sprintf(account, "a"), convert.Options{Namespace: "shop"})
	if objs[0].Key.Namespace != "shop" || objs[0].ValueAt("metadata.namespace") != "shop" {
		t.Errorf("%+v %s", objs[0].Key, objs[0].Raw)
	}
	objs, _ = decode("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", convert.Options{Namespace: "x"})
	if objs[0].Key.Namespace != "" {
		t.Errorf("a Namespace is in namespace %q", objs[0].Key.Namespace)
	}
}

func TestWhatServersWriteIsDroppedWithAWarning(t *testing.T) {
	text := fmt.Sprintf(account, "a") + "  uid: 1234\n  resourceVersion: \"7\"\n  creationTimestamp: 2026-01-02T03:04:05Z\n"
	objs, diags := decode(text, convert.Options{})
	if len(objs) != 1 || strings.Contains(string(objs[0].Raw), "1234") || objs[0].Meta.Created.Year() != 2026 {
		t.Errorf("%v", objs)
	}
	if len(diags) != 2 || diags[0].Severity != admin.SeverityWarning || diags[0].Code != convert.CodeServerField {
		t.Errorf("%+v", diags)
	}
	_, diags = decode(fmt.Sprintf(account, "a")+"  creationTimestamp: null\n", convert.Options{})
	if len(diags) != 0 {
		t.Errorf("what kubectl create --dry-run writes is not taken: %+v", diags)
	}
}

func TestAliasesAreExpanded(t *testing.T) {
	text := `apiVersion: v1
kind: Service
metadata: {name: a, labels: &l {app: a}}
spec: {selector: *l, ports: [{port: 80, name: http}]}
`
	objs, diags := decode(text, convert.Options{})
	if len(diags) != 0 || objs[0].ValueAt("spec.selector.app") != "a" {
		t.Errorf("%+v", diags)
	}
}

func TestLimits(t *testing.T) {
	deep := "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: " + strings.Repeat("{a: ", 90) + "b" + strings.Repeat("}", 90)
	for name, c := range map[string]struct{ text, code string }{
		"a document over 1 MiB":   {fmt.Sprintf(account, "a") + "# " + strings.Repeat("x", convert.MaxDocument), convert.CodeTooLarge},
		"a file over 16 MiB":      {strings.Repeat("#\n", convert.MaxFile), convert.CodeTooLarge},
		"nesting in free form":    {strings.Replace(deep, "kind: Service", "kind: VirtualService", 1), convert.CodeUnknownKind},
		"brackets without an end": {"a: " + strings.Repeat("[", 20000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			objs, diags := decode(c.text, convert.Options{})
			if len(objs) != 0 || len(diags) == 0 || c.code != "" && diags[0].Code != c.code {
				t.Errorf("%v %.300s", objs, fmt.Sprintf("%+v", diags))
			}
		})
	}
	objs, diags := decode(fmt.Sprintf(account, "a")+"---\n"+"# "+strings.Repeat("x", convert.MaxDocument/2)+"\n"+fmt.Sprintf(account, "b"), convert.Options{})
	if len(objs) != 2 || len(diags) != 0 {
		t.Errorf("a file of two documents of half the limit: %v %+v", objs, diags)
	}
}

const pod = `apiVersion: v1
kind: Pod
metadata:
  name: reviews-v1-abc
  namespace: default
  labels: {app: reviews}
  creationTimestamp: "2026-01-02T03:04:05Z"
  deletionTimestamp: "2026-01-02T04:04:05Z"
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: reviews-v1, uid: ""}]
spec:
  serviceAccountName: bookinfo-reviews
  nodeName: local
  containers:
  - {name: app, ports: [{name: http, containerPort: 9080, protocol: TCP}], resources: {}}
  - {name: istio-proxy, resources: {}}
status:
  podIP: 10.10.0.5
  podIPs: [{ip: 10.10.0.5}]
  conditions: [{type: Ready, status: "True", lastTransitionTime: null}]
`

func TestThePodsDirectoryHoldsPodsOnly(t *testing.T) {
	objs, diags := decode(pod, convert.Options{Pods: true})
	if len(objs) != 1 || len(diags) != 0 {
		t.Fatalf("%v %+v", objs, diags)
	}
	ms, diags := convert.ToModel(&objs[0], model.Mesh{})
	if len(ms) != 1 || len(diags) != 0 {
		t.Fatalf("%+v", diags)
	}
	w := ms[0].(*model.Workload)
	got := fmt.Sprintf("%v %s %s %v %v ready=%t terminating=%t sidecar=%t gateway=%t", w.Addresses, w.ServiceAccount, w.WorkloadName, w.Ports, w.ContainerPorts, w.Ready, w.Terminating, w.HasSidecar, w.Gateway)
	if want := "[10.10.0.5] bookinfo-reviews reviews-v1 map[http:9080] [9080] ready=true terminating=true sidecar=true gateway=false"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if objs, diags = decode(fmt.Sprintf(account, "a"), convert.Options{Pods: true}); len(objs) != 0 || len(diags) != 1 {
		t.Errorf("another kind was taken: %v %+v", objs, diags)
	}
	if objs, diags = decode(pod, convert.Options{}); len(objs) != 0 || diags[0].Hint != "use a Deployment" {
		t.Errorf("a user's Pod was taken: %v %+v", objs, diags)
	}
}

func TestAPodAsAnEncoderWritesItIsRead(t *testing.T) {
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: null}\nspec: {containers: null}\nstatus: {}\n"
	if objs, diags := decode(text, convert.Options{Pods: true}); len(objs) != 1 || len(diags) != 0 {
		t.Errorf("%v %+v", objs, diags)
	}
}

func TestAGatewaysPodIsNoSidecar(t *testing.T) {
	text := strings.Replace(pod, "  - {name: app, ports: [{name: http, containerPort: 9080, protocol: TCP}], resources: {}}\n", "", 1)
	objs, _ := decode(text, convert.Options{Pods: true})
	ms, _ := convert.ToModel(&objs[0], model.Mesh{})
	if w := ms[0].(*model.Workload); !w.Gateway || w.HasSidecar {
		t.Errorf("gateway=%t sidecar=%t", w.Gateway, w.HasSidecar)
	}
}

func TestTheRuntimesJudgementOfADeploymentIsReported(t *testing.T) {
	text := `apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: app, image: x}], hostNetwork: true}
`
	opts := convert.Options{CheckDeployment: func(d *appsv1.Deployment) []convert.FieldProblem {
		if !d.Spec.Template.Spec.HostNetwork {
			t.Error("the hook got another Deployment")
		}
		return []convert.FieldProblem{{Field: "spec.template.spec.hostNetwork", Value: "true", Message: "no", Hint: "remove it"}}
	}}
	objs, diags := decode(text, opts)
	if len(objs) != 0 || len(diags) != 1 || diags[0].Code != convert.CodeUnsupportedField || diags[0].Line != 8 || diags[0].Hint != "remove it" {
		t.Errorf("%v %+v", objs, diags)
	}
}

// plain leaves out what is not set, so that a golden file shows what was converted.
// Pointers (TTL, Timeout) and presence ({}) stay.
func plain(s string) string {
	unset := regexp.MustCompile(`(?m)^ *"(?:[A-Za-z0-9_]+": (?:null|""|false|\[\])|(?:Headers|Request|Response|Policy)": \{\}|(?:[A-SU-Za-z][A-Za-z0-9_]*|TCPIdleTimeout|Table|Time|TargetPort)": 0),?\n`)
	empty := regexp.MustCompile(`(?m)^( *"[^"]+": )\{\n *\}(,?)$`)
	for {
		next := empty.ReplaceAllString(unset.ReplaceAllString(s, ""), "$1{}$2")
		if next == s {
			return s
		}
		s = next
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with -update", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, d)
	}
}

// TestGoodInputsAreAccepted: manifests in the style of Istio's documentation, and what they become.
func TestGoodInputsAreAccepted(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	if len(files) == 0 {
		t.Fatal("no good inputs")
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		objs, diags := convert.Decode(admin.File{Name: filepath.Base(f), Content: string(text)}, convert.Options{})
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", " ")
		for i := range objs {
			ms, more := convert.ToModel(&objs[i], model.Mesh{})
			diags = append(diags, more...)
			for _, m := range ms {
				if err := enc.Encode(m); err != nil {
					t.Fatal(err)
				}
			}
		}
		golden(t, strings.TrimSuffix(f, ".yaml")+".golden.json", plain(out.String()))
		if strings.Count(string(text), "\nkind: ") != len(objs) {
			t.Errorf("%s: %d objects of %d", f, len(objs), strings.Count(string(text), "\nkind: "))
		}
		for _, d := range diags {
			if !strings.Contains(string(text), "# warns: "+d.Code) || d.Severity == admin.SeverityError {
				t.Errorf("%+v", d)
			}
		}
	}
}

func TestModelOfAServiceEntry(t *testing.T) {
	objs, _ := decode(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext}
spec: {hosts: [A.example.com, b.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}
`, convert.Options{})
	ms, diags := convert.ToModel(&objs[0], model.Mesh{})
	if len(diags) != 0 || len(ms) != 2 {
		t.Fatalf("%v %+v", ms, diags)
	}
	var hosts []string
	for _, m := range ms {
		s := m.(*model.Service)
		if !s.External || !s.Entry || s.Resolution != model.ResolveDNS || s.Ports[0].Protocol != model.ProtocolTLS {
			t.Errorf("%+v", s)
		}
		hosts = append(hosts, s.Host)
	}
	if d := cmp.Diff([]string{"a.example.com", "b.example.com"}, hosts); d != "" {
		t.Error(d)
	}
}

func TestProtocolOfAServicePort(t *testing.T) {
	for _, c := range []struct{ port, want string }{
		{"{port: 80, name: http}", "HTTP"}, {"{port: 80, name: http-web}", "HTTP"}, {"{port: 80, name: httpweb}", ""}, {"{port: 80, name: grpc-web-x}", "GRPC-Web"},
		{"{port: 80, name: grpc}", "GRPC"}, {"{port: 80, name: http2-a}", "HTTP2"}, {"{port: 80, name: web, appProtocol: http}", "HTTP"},
		{"{port: 80, name: http, appProtocol: kubernetes.io/h2c}", "HTTP2"}, {"{port: 80, name: http, appProtocol: tcp}", "TCP"},
		{"{port: 3306, name: db}", "TCP"}, {"{port: 6379, name: redis}", "TCP"}, {"{port: 53, name: dns, protocol: UDP}", "UDP"}, {"{port: 443, name: https}", "HTTPS"}, {"{port: 80}", ""},
	} {
		objs, diags := decode("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {a: b}, ports: ["+c.port+"]}\n", convert.Options{})
		if len(diags) != 0 {
			t.Fatalf("%s: %+v", c.port, diags)
		}
		ms, _ := convert.ToModel(&objs[0], model.Mesh{})
		if got := string(ms[0].(*model.Service).Ports[0].Protocol); got != c.want {
			t.Errorf("%s: protocol %q, want %q", c.port, got, c.want)
		}
	}
}

// FuzzDecode: no input makes Decode or ToModel panic or run away, errors have a place, and what is accepted reads the same from its raw form.
func FuzzDecode(f *testing.F) {
	for _, pattern := range []string{"../analyze/testdata/bad/*.yaml", "testdata/good/*.yaml", "../../samples/bookinfo/*/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, n := range files {
			if text, err := os.ReadFile(n); err == nil && len(text) < 10000 {
				f.Add(string(text), false)
			}
		}
	}
	f.Add(pod, true)
	f.Fuzz(func(t *testing.T, text string, pods bool) {
		objs, diags := decode(text, convert.Options{Pods: pods})
		for _, d := range diags {
			if d.Line < 1 || d.Code == "" || d.Message == "" {
				t.Fatalf("incomplete: %+v", d)
			}
		}
		for i := range objs {
			o := &objs[i]
			a, _ := convert.ToModel(o, model.Mesh{})
			again, diags := convert.DecodeStored(o.Raw, "store", convert.Options{Pods: pods})
			if convert.HasErrors(diags) {
				t.Fatalf("the raw form of an accepted object is refused: %+v\n%s", diags, o.Raw)
			}
			if string(again.Raw) != string(o.Raw) {
				t.Fatalf("the raw form changes:\n%s\n%s", o.Raw, again.Raw)
			}
			if b, _ := convert.ToModel(&again, model.Mesh{}); len(a) != len(b) {
				t.Fatalf("%d values from the text, %d from the raw form", len(a), len(b))
			}
		}
	})
}
