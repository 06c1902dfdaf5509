package render_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/inject"
)

// The chart's gateway ends as one that gets its proxy by injection: what says how is written in two places.
func TestTheChartsGatewayEndsAsInjectedOnesDo(t *testing.T) {
	for _, tt := range []struct {
		grace, quiet int
		hook         bool
	}{{60, 3, true}, {30, 3, true}, {13, 3, true}, {12, 3, false}, {60, 0, false}, {0, 3, false}, {120, 90, true}, {3600, 5, true}} {
		text := rendered(t, "", "gateways.ingress.enabled=true", fmt.Sprintf("gateways.ingress.terminationGracePeriodSeconds=%d,injection.proxy.stopDelaySeconds=%d", tt.grace, tt.quiet))
		var chart *corev1.Lifecycle
		for _, o := range objects(t, text) {
			if o["kind"] != "Deployment" || o["metadata"].(map[string]any)["name"] != "istio-ingressgateway" {
				continue
			}
			b, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			var d appsv1.Deployment
			if err := json.Unmarshal(b, &d); err != nil {
				t.Fatal(err)
			}
			chart = d.Spec.Template.Spec.Containers[0].Lifecycle
		}
		values, err := inject.ParseValues(fmt.Sprintf("{proxy: {stopDelaySeconds: %d}}", tt.quiet))
		if err != nil {
			t.Fatal(err)
		}
		pod, err := yaml.YAMLToJSONStrict(fmt.Appendf(nil, `{metadata: {name: gw, annotations: {inject.istio.io/templates: gateway}},
  spec: {terminationGracePeriodSeconds: %d, containers: [{name: istio-proxy, image: auto}]}}`, tt.grace))
		if err != nil {
			t.Fatal(err)
		}
		r, err := (&inject.Config{Values: values, DiscoveryAddress: "weft.weft-system.svc:15012"}).Inject(pod, "shop")
		if err != nil {
			t.Fatal(err)
		}
		var p corev1.Pod
		if err := json.Unmarshal(r.Pod, &p); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p.Spec.Containers[0].Lifecycle, chart); d != "" || (chart != nil) != tt.hook {
			t.Errorf("%+v: -injected +chart:\n%s", tt, d)
		}
	}
}
