package render_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/inject"
)

// chartGateway is the pod of the chart's gateway.
func chartGateway(t *testing.T, sets ...string) corev1.PodSpec {
	t.Helper()
	var d appsv1.Deployment
	for _, o := range objects(t, rendered(t, "", append(sets, "gateways.ingress.enabled=true")...)) {
		if o["kind"] != "Deployment" || o["metadata"].(map[string]any)["name"] != "istio-ingressgateway" {
			continue
		}
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("containers of the gateway: %+v", d.Spec.Template.Spec.Containers)
	}
	return d.Spec.Template.Spec
}

// injectedGateway is what injection makes of a gateway's pod with so much time to end.
func injectedGateway(t *testing.T, values string, grace int) corev1.PodSpec {
	t.Helper()
	v, err := inject.ParseValues(values)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := yaml.YAMLToJSONStrict(fmt.Appendf(nil, `{metadata: {name: gw, annotations: {inject.istio.io/templates: gateway}},
  spec: {terminationGracePeriodSeconds: %d, containers: [{name: istio-proxy, image: auto}]}}`, grace))
	if err != nil {
		t.Fatal(err)
	}
	r, err := (&inject.Config{Values: v, DiscoveryAddress: "weft.weft-system.svc:15012"}).Inject(pod, "shop")
	if err != nil {
		t.Fatal(err)
	}
	var p corev1.Pod
	if err := json.Unmarshal(r.Pod, &p); err != nil {
		t.Fatal(err)
	}
	return p.Spec
}

// The chart's gateway ends as one that gets its proxy by injection: what says how is written in two places.
func TestTheChartsGatewayEndsAsInjectedOnesDo(t *testing.T) {
	for _, tt := range []struct {
		grace, quiet int
		hook         bool
	}{{60, 3, true}, {30, 3, true}, {13, 3, true}, {12, 3, false}, {60, 0, false}, {0, 3, false}, {120, 90, true}, {3600, 5, true}} {
		chart := chartGateway(t, fmt.Sprintf("gateways.ingress.terminationGracePeriodSeconds=%d,injection.proxy.stopDelaySeconds=%d", tt.grace, tt.quiet)).Containers[0].Lifecycle
		injected := injectedGateway(t, fmt.Sprintf("{proxy: {stopDelaySeconds: %d}}", tt.quiet), tt.grace).Containers[0].Lifecycle
		if d := cmp.Diff(injected, chart); d != "" || (chart != nil) != tt.hook {
			t.Errorf("%+v: -injected +chart:\n%s", tt, d)
		}
	}
}

// Nor may it trust other roots, or from elsewhere.
func TestTheChartsGatewayHasTheVolumesOfInjectedOnes(t *testing.T) {
	byName := func(vs []corev1.Volume) []corev1.Volume {
		return slices.SortedFunc(slices.Values(vs), func(a, b corev1.Volume) int { return strings.Compare(a.Name, b.Name) })
	}
	for _, bundle := range []bool{false, true} {
		chart := byName(chartGateway(t, fmt.Sprintf("global.clusterTrustBundle=%t", bundle)).Volumes)
		injected := byName(injectedGateway(t, fmt.Sprintf("{global: {clusterTrustBundle: %t}}", bundle), 60).Volumes)
		if d := cmp.Diff(injected, chart); d != "" {
			t.Errorf("clusterTrustBundle %t: -injected +chart:\n%s", bundle, d)
		}
	}
}
