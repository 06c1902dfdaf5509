package gateway

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/inject"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/model"
)

var update = flag.Bool("update", false, "rewrite the expected objects")

func wanted() gatewayapi.Deployment {
	return gatewayapi.Deployment{
		Gateway: model.Key{Kind: model.KindK8sGateway, Namespace: "shop", Name: "web"}, Namespace: "shop", Name: "web-weft",
		Class: "weft", Controller: gatewayapi.Controller,
		Ports:       []gatewayapi.DeploymentPort{{Name: "http-80", Port: 80}, {Name: "https-443", Port: 443}},
		Labels:      map[string]string{model.GatewayNameLabel: "web", "team": "shop"},
		Annotations: map[string]string{"note": "x"},
	}
}

func config() *inject.Config {
	return &inject.Config{Values: inject.DefaultValues(), DiscoveryAddress: "weft.weft-system.svc:15012"}
}

func owner(annotations map[string]string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetName("web")
	u.SetUID("5")
	u.SetAnnotations(annotations)
	return u
}

func TestGolden(t *testing.T) {
	params, problem := parseOverlays(map[string]string{
		"deployment":              "spec: {template: {spec: {nodeSelector: {edge: \"yes\"}, containers: [{name: istio-proxy, resources: {requests: {cpu: 500m}}}]}}}",
		"service":                 "{metadata: {annotations: {lb: internal}}, spec: {ports: [{port: 9000, name: more, targetPort: 9000}]}}",
		"horizontalPodAutoscaler": "spec: {minReplicas: 2, maxReplicas: 5}",
		"podDisruptionBudget":     "spec: {minAvailable: 1}",
	})
	if problem != "" {
		t.Fatal(problem)
	}
	for name, over := range map[string]overlays{"plain": nil, "parameters": params} {
		t.Run(name, func(t *testing.T) {
			d := wanted()
			d.Addresses = []string{"", "10.0.0.9"}
			objs, err := objectsOf(d, owner(nil), config(), over)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, o := range objs {
				text, err := yaml.Marshal(o.Object)
				if err != nil {
					t.Fatal(err)
				}
				b.WriteString("---\n" + string(text))
			}
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("objects (-want +got):\n%s", d)
			}
		})
	}
}

func TestBadParametersAreSaid(t *testing.T) {
	for name, c := range map[string]struct {
		data map[string]string
		want string
	}{
		"another key":    {map[string]string{"pod": "{}"}, `key "pod" is not known; there are deployment,`},
		"no YAML":        {map[string]string{"service": "{"}, `key "service": `},
		"no object":      {map[string]string{"service": "[1]"}, `key "service": want an object`},
		"another's name": {map[string]string{"service": "metadata: {name: mine}"}, "metadata.name cannot be set"},
	} {
		if _, problem := parseOverlays(c.data); !strings.Contains(problem, c.want) {
			t.Errorf("%s: %q, want %q", name, problem, c.want)
		}
	}
	o, problem := parseOverlays(map[string]string{"deployment": "spec: {template: {spec: {containers: none}}}"})
	if problem != "" {
		t.Fatal(problem)
	}
	if _, err := objectsOf(wanted(), owner(nil), config(), o); err == nil || !strings.Contains(err.Error(), `key "deployment"`) {
		t.Errorf("a patch that does not fit: %v", err)
	}
}

// Parameters cannot make the objects somebody else's.
func TestParametersKeepOurLabels(t *testing.T) {
	o, _ := parseOverlays(map[string]string{"service": "metadata: {labels: {gateway.istio.io/managed: me, gateway.networking.k8s.io/gateway-name: other, mine: x}}"})
	objs, err := objectsOf(wanted(), owner(nil), config(), o)
	if err != nil {
		t.Fatal(err)
	}
	l := objs[1].GetLabels()
	if l[labelManaged] != managedBy || l[model.GatewayNameLabel] != "web" || l["mine"] != "x" {
		t.Errorf("labels %v", l)
	}
}

func TestTheServicesType(t *testing.T) {
	for ann, want := range map[string]string{"": "LoadBalancer", "ClusterIP": "ClusterIP", "NodePort": "NodePort"} {
		objs, err := objectsOf(wanted(), owner(map[string]string{annServiceType: ann}), config(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := unstructured.NestedString(objs[1].Object, "spec", "type"); got != want {
			t.Errorf("annotation %q: type %s, want %s", ann, got, want)
		}
	}
	if _, err := objectsOf(wanted(), owner(map[string]string{annServiceType: "ExternalName"}), config(), nil); err == nil {
		t.Error("ExternalName is taken")
	}
}

func TestAddresses(t *testing.T) {
	service := func(text string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatal(err)
		}
		u.SetName("web-weft")
		u.SetNamespace("shop")
		return u
	}
	for text, want := range map[string][]string{
		"spec: {type: LoadBalancer}": nil,
		"{spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 10.0.0.1}, {hostname: a.example}]}}}": {"10.0.0.1", "a.example"},
		"spec: {type: ClusterIP}": {"web-weft.shop.svc.cluster.local"},
	} {
		if d := cmp.Diff(want, kubeclient.ServiceAddresses(service(text))); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

// A Gateway that is not accepted, or not any more, keeps what it has; nothing is made or read for it.
func TestAGatewayOnHoldKeepsWhatItHas(t *testing.T) {
	c := New(Settings{}) // without a client: whoever asked the API server would fail
	c.seen = newStores()
	d := gatewayapi.Deployment{Gateway: model.Key{Kind: model.KindK8sGateway, Namespace: "ns", Name: "g"}, Namespace: "ns", Name: "g-weft", Hold: true}
	_, keys, err := c.deploy(t.Context(), d)
	if err != nil || len(keys) != len(owned) {
		t.Errorf("%d of %d kinds of object are kept, %v", len(keys), len(owned), err)
	}
}
