package inject

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// A gateway serves on until nobody comes any more, for what its grace period leaves, unless somebody said how it drains.
func TestHowGatewaysEnd(t *testing.T) {
	const mine = "sh -c mine"
	for _, tt := range []struct{ name, values, mesh, annotations, spec, proxy, want string }{
		{name: "Kubernetes' 30 s", want: "drain --status-port 15020 --quiet 3s --most 20s"},
		{name: "a minute", spec: "terminationGracePeriodSeconds: 60", want: "drain --status-port 15020 --quiet 3s --most 50s"},
		{name: "a day", spec: "terminationGracePeriodSeconds: 86400", want: "drain --status-port 15020 --quiet 3s --most 3600s"},
		{name: "just enough", spec: "terminationGracePeriodSeconds: 13", want: "drain --status-port 15020 --quiet 3s --most 3s"},
		{name: "too little", spec: "terminationGracePeriodSeconds: 12"},
		{name: "another delay and port", values: "{proxy: {stopDelaySeconds: 7, statusPort: 15099}}", want: "drain --status-port 15099 --quiet 7s --most 20s"},
		{name: "switched off", values: "{proxy: {stopDelaySeconds: 0}}"},
		{name: "terminationDrainDuration of the pod", annotations: `proxy.istio.io/config: '{"terminationDrainDuration":"20s"}'`},
		{name: "terminationDrainDuration of the mesh", mesh: `{"terminationDrainDuration":"20s"}`},
		{name: "drainDuration is another", annotations: `proxy.istio.io/config: '{"drainDuration":"20s"}'`, want: "drain --status-port 15020 --quiet 3s --most 20s"},
		{name: "proxyMetadata", annotations: `proxy.istio.io/config: '{"proxyMetadata":{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS":"true"}}'`},
		{name: "a variable", proxy: `env: [{name: EXIT_ON_ZERO_ACTIVE_CONNECTIONS, value: "true"}]`},
		{name: "another variable", proxy: `env: [{name: TERMINATION_DRAIN_DURATION_SECONDS, value: "40"}]`},
		{name: "a hook of its own", proxy: "lifecycle: {preStop: {exec: {command: [sh, -c, mine]}}}", want: mine},
		{name: "a hook at its start", proxy: "lifecycle: {postStart: {exec: {command: [sh, -c, mine]}}}", want: "drain --status-port 15020 --quiet 3s --most 20s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testCase{Values: json.RawMessage(tt.values)}
			if tt.mesh != "" {
				c.Mesh.DefaultConfig = json.RawMessage(tt.mesh)
			}
			pod := "metadata:\n  name: gw\n  annotations:\n    inject.istio.io/templates: gateway\n    " + tt.annotations +
				"\nspec:\n  " + tt.spec + "\n  containers:\n  - name: istio-proxy\n    image: auto\n    " + tt.proxy + "\n"
			text, err := yaml.YAMLToJSONStrict([]byte(pod))
			check(t, err)
			r, err := c.config(t).Inject(text, "shop")
			check(t, err)
			var p corev1.Pod
			check(t, json.Unmarshal(r.Pod, &p))
			got := ""
			if l := p.Spec.Containers[0].Lifecycle; l != nil && l.PreStop != nil {
				got = strings.TrimPrefix(strings.Join(l.PreStop.Exec.Command, " "), programProxy+" ")
			}
			if got != tt.want {
				t.Errorf("preStop %q, want %q", got, tt.want)
			}
		})
	}
}
