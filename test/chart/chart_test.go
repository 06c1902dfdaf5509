// Package chart_test holds our rendering of the chart against Helm's own, and
// the chart against Helm's linter. It is a module of its own so that Helm is no
// dependency of the project: make test-chart.
package chart_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"helm.sh/helm/v4/pkg/strvals"

	"weft.mesh/weft/deploy"
	"weft.mesh/weft/deploy/render"
)

const dir = "../../deploy/chart"

// cases are --set values on top of each profile.
var cases = []string{
	"",
	"revision=canary,revisionTags={prod,default},sharedObjects=false",
	"istioCompatible=true,controlPlane.plaintextXDS=true,injection.enableNamespacesByDefault=true,global.imagePullSecrets={a,b},gateways.ingress.enabled=true,gateways.ingress.autoscaling.enabled=true",
	`controlPlane.nodeSelector.kubernetes\.io/os=linux,controlPlane.podLabels.x=y,controlPlane.extraArgs={--a,--b},meshConfig.accessLogFile=/dev/stdout,controlPlane.replicas=3`,
	"gateways.ingress.enabled=true,gateways.ingress.serviceType=ClusterIP,gateways.ingress.ports[0].port=80,gateways.ingress.ports[0].name=http,gateways.ingress.replicas=2,global.network=n1,discoverySelectors[0].matchLabels.mesh=on",
}

func TestWeRenderWhatHelmRenders(t *testing.T) {
	ours, err := render.Load(deploy.Chart())
	if err != nil {
		t.Fatal(err)
	}
	helms, err := loader.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, profile := range ours.Profiles() {
		for _, set := range cases {
			t.Run(profile+" "+set, func(t *testing.T) {
				v, err := render.ParseSet(nil, "global.tag=v1")
				if set != "" && err == nil {
					v, err = render.ParseSet(v, set)
				}
				if err != nil {
					t.Fatal(err)
				}
				// Helm reads --set by itself, so that our reader is compared too.
				theirs := map[string]any{}
				if err := strvals.ParseInto("global.tag=v1", theirs); err != nil {
					t.Fatal(err)
				}
				if set != "" {
					if err := strvals.ParseInto(set, theirs); err != nil {
						t.Fatal(err)
					}
				}
				all, err := ours.Values(profile, v)
				if err != nil {
					t.Fatal(err)
				}
				files, err := ours.Render(render.Release{Namespace: "weft-system", Service: "Helm"}, all)
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]string{}
				for _, f := range files {
					got["weft/"+f.Name] = f.Text
				}
				want := helm(t, helms, profile, theirs)
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("Helm's (-) and ours (+):\n%s", d)
				}
			})
		}
	}
}

// helm renders as helm template -f profiles/PROFILE.yaml does.
func helm(t *testing.T, c any, profile string, set map[string]any) map[string]string {
	t.Helper()
	p, err := common.ReadValuesFile(dir + "/profiles/" + profile + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	values := loader.MergeMaps(p, set)
	v, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "weft", Namespace: "weft-system", IsInstall: true, Revision: 1}, common.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(c, v)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, text := range files {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(text) != "" {
			out[name] = text
		}
	}
	return out
}

func TestHelmLintFindsNothing(t *testing.T) {
	for _, set := range cases {
		values := map[string]any{}
		if set != "" {
			if err := strvals.ParseInto(set, values); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range lint.RunAll(dir, values, "weft-system").Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %v", set, m)
			}
		}
	}
}

// Helm's validator refuses what ours refuses.
func TestTheSchemaMeansTheSameToHelm(t *testing.T) {
	ours, err := render.Load(deploy.Chart())
	if err != nil {
		t.Fatal(err)
	}
	helms, err := loader.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{
		"controlPlane.replica=3", "controlPlane.replicas=many", "controlPlane.replicas=101", "injection.failurePolicy=Maybe",
		"revision=Canary_1", "revisionTags=prod", "gateways.ingress.ports[0].port=70000", "istioCompatible=1", "cni.enabled=1",
		"controlPlane.replicas=3", "revision=v1-2", "meshConfig.anything.goes=1",
	} {
		v, err := render.ParseSet(nil, set)
		if err != nil {
			t.Fatal(err)
		}
		_, mine := ours.Values("", v)
		_, theirs := util.ToRenderValues(helms, v, common.ReleaseOptions{Name: "weft"}, common.DefaultCapabilities)
		if (mine == nil) != (theirs == nil) {
			t.Errorf("%s: ours %v, Helm's %v", set, mine, theirs)
		}
	}
}
