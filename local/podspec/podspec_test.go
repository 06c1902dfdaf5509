package podspec

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/node/capture"
)

func deployment(t *testing.T, text string) *appsv1.Deployment {
	t.Helper()
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

const good = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1, namespace: bookinfo, labels: {app: reviews}}
spec:
  replicas: 3
  selector: {matchLabels: {app: reviews}}
  strategy: {rollingUpdate: {maxSurge: 50%, maxUnavailable: 1}}
  template:
    metadata:
      labels: {app: reviews, version: v1}
      annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: "3306", prometheus.io/scrape: "true"}
    spec:
      serviceAccountName: bookinfo-reviews
      terminationGracePeriodSeconds: 7
      containers:
      - name: reviews
        image: ignored:1
        imagePullPolicy: IfNotPresent
        resources: {limits: {cpu: 100m}}
        command: [reviews]
        args: [--port, "$(PORT)", "$$HOME", "$(NOBODY)"]
        workingDir: /srv
        env:
        - {name: PORT, value: "9080"}
        - {name: SELF, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: VERSION, valueFrom: {fieldRef: {fieldPath: "metadata.labels['version']"}}}
        - {name: URL, value: "http://$(SELF):$(PORT)/"}
        ports:
        - {name: http, containerPort: 9080}
        - {containerPort: 5353, protocol: UDP}
        startupProbe: {tcpSocket: {port: http}, failureThreshold: 30, periodSeconds: 1}
        readinessProbe: {httpGet: {path: health, port: http, httpHeaders: [{name: X, value: z}]}}
        livenessProbe: {grpc: {port: 9080, service: s}, initialDelaySeconds: 5, timeoutSeconds: 2}
`

func TestParseReadsEveryFieldThatItTakes(t *testing.T) {
	spec, problems := Parse(deployment(t, good))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	spec.Hash = ""
	probe := func(p Probe) *Probe {
		p.SuccessThreshold = 1
		return &p
	}
	want := Spec{
		Namespace: "bookinfo", Name: "reviews-v1", Replicas: 3,
		Labels:         map[string]string{"app": "reviews", "version": "v1"},
		Annotations:    map[string]string{"traffic.sidecar.istio.io/excludeOutboundPorts": "3306", "prometheus.io/scrape": "true"},
		ServiceAccount: "bookinfo-reviews", Grace: 7 * time.Second, Strategy: Strategy{MaxSurge: 2, MaxUnavailable: 1},
		Capture: true, Traffic: capture.Traffic{ExcludeOutboundPorts: []uint16{3306}},
		Containers: []Container{{
			Name: "reviews", Command: []string{"reviews", "--port", "$(PORT)", "$$HOME", "$(NOBODY)"}, Dir: "/srv",
			Env: []EnvVar{{Name: "PORT", Value: "9080"}, {Name: "SELF", Field: "metadata.name"},
				{Name: "VERSION", Field: "metadata.labels['version']"}, {Name: "URL", Value: "http://$(SELF):$(PORT)/"}},
			Ports:     []Port{{Name: "http", Port: 9080}, {Port: 5353, UDP: true}},
			Startup:   probe(Probe{TCP: &TCPProbe{Port: 9080}, Period: time.Second, Timeout: time.Second, FailureThreshold: 30}),
			Readiness: probe(Probe{HTTP: &HTTPProbe{Port: 9080, Path: "/health", Headers: [][2]string{{"X", "z"}}}, Period: 10 * time.Second, Timeout: time.Second, FailureThreshold: 3}),
			Liveness:  probe(Probe{GRPC: &GRPCProbe{Port: 9080, Service: "s"}, InitialDelay: 5 * time.Second, Period: 10 * time.Second, Timeout: 2 * time.Second, FailureThreshold: 3}),
		}},
	}
	if d := cmp.Diff(want, spec); d != "" {
		t.Error(d)
	}
}

func TestResolve(t *testing.T) {
	spec, _ := Parse(deployment(t, good))
	argv, env := spec.Containers[0].Resolve([]string{"PATH=/bin", "PORT=1"}, Identity{Name: "reviews-v1-x", Labels: spec.Labels})
	if d := cmp.Diff([]string{"reviews", "--port", "9080", "$HOME", "$(NOBODY)"}, argv); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"PATH=/bin", "PORT=9080", "SELF=reviews-v1-x", "VERSION=v1", "URL=http://reviews-v1-x:9080/"}, env); d != "" {
		t.Error(d)
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"": "", "$": "$", "$$": "$", "$$(A)": "$(A)", "$(A)": "1", "x$(A)y$(A)": "x1y1", "$(B)": "$(A)", "$(C)": "$(C)", "$(A": "$(A", "$A": "$A", "100$": "100$",
	} {
		if got := expand(in, values); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestValidateRefusesByName(t *testing.T) {
	tests := []struct {
		name     string
		old, new string // replaced in the good Deployment
		field    string
		says     string
	}{
		{"volumes", "serviceAccountName: bookinfo-reviews", "volumes: [{name: tmp, emptyDir: {}}]", "spec.template.spec.volumes", "use a path"},
		{"volume mounts", "workingDir: /srv", "volumeMounts: [{name: tmp, mountPath: /tmp}]", "spec.template.spec.containers[0].volumeMounts", "use a path"},
		{"init containers", "serviceAccountName: bookinfo-reviews", "initContainers: [{name: a}]", "spec.template.spec.initContainers", "exec serve"},
		{"a security context", "workingDir: /srv", "securityContext: {runAsUser: 0}", "spec.template.spec.containers[0].securityContext", "runs as the user"},
		{"host network", "serviceAccountName: bookinfo-reviews", "hostNetwork: true", "spec.template.spec.hostNetwork", "ingress gateway"},
		{"secrets in env", "{fieldRef: {fieldPath: metadata.name}}", "{secretKeyRef: {name: a, key: b}}", "spec.template.spec.containers[0].env[1].valueFrom.secretKeyRef", "write the value"},
		{"envFrom", "workingDir: /srv", "envFrom: [{configMapRef: {name: a}}]", "spec.template.spec.containers[0].envFrom", "into env"},
		{"lifecycle", "workingDir: /srv", "lifecycle: {preStop: {exec: {command: [a]}}}", "spec.template.spec.containers[0].lifecycle", "SIGTERM"},
		{"match expressions", "matchLabels: {app: reviews}", "matchLabels: {app: reviews}, matchExpressions: [{key: a, operator: Exists}]", "spec.selector.matchExpressions", "matchLabels"},
		{"a paused rollout", "replicas: 3", "replicas: 3\n  paused: true", "spec.paused", "remove it"},
		{"minReadySeconds", "replicas: 3", "minReadySeconds: 3", "spec.minReadySeconds", "readinessProbe"},
		{"a host port of a program", "containerPort: 9080}", "containerPort: 9080, hostPort: 80}", "spec.template.spec.containers[0].ports[0].hostPort", "ingress gateway"},
		{"a host address", "containerPort: 9080}", "containerPort: 9080, hostIP: 1.2.3.4}", "spec.template.spec.containers[0].ports[0].hostIP", "127.0.0.1"},
		{"no command", "command: [reviews]", "", "spec.template.spec.containers[0].command", "no image"},
		{"a name that is the sidecar's", "- name: reviews", "- name: istio-proxy", "spec.template.spec.containers[0].name", "name of the sidecar"},
		{"a selector that does not match", "labels: {app: reviews, version: v1}", "labels: {app: other}", "spec.selector.matchLabels", "app: reviews"},
		{"negative replicas", "replicas: 3", "replicas: -1", "spec.replicas", "0 to 200"},
		{"a percentage that is none", "maxSurge: 50%", "maxSurge: half", "spec.strategy.rollingUpdate.maxSurge", "percentage"},
		{"an unknown strategy", "strategy: {", "strategy: {type: BlueGreen, ", "spec.strategy.type", "Recreate"},
		{"a working folder that is relative", "workingDir: /srv", "workingDir: srv", "spec.template.spec.containers[0].workingDir", "absolute"},
		{"a probe without handler", "readinessProbe: {httpGet: {path: health, port: http, httpHeaders: [{name: X, value: z}]}}", "readinessProbe: {periodSeconds: 1}", "spec.template.spec.containers[0].readinessProbe", "exactly one"},
		{"a probe of an unknown port", "startupProbe: {tcpSocket: {port: http}", "startupProbe: {tcpSocket: {port: web}", "spec.template.spec.containers[0].startupProbe.tcpSocket.port", "declare it"},
		{"a liveness probe that must succeed twice", "initialDelaySeconds: 5", "successThreshold: 2", "spec.template.spec.containers[0].livenessProbe.successThreshold", "must be 1"},
		{"a field reference that is not there", "fieldPath: metadata.name}", "fieldPath: status.startTime}", "spec.template.spec.containers[0].env[1].valueFrom.fieldRef.fieldPath", "metadata.name"},
		{"an annotation with a bad value", `excludeOutboundPorts: "3306"`, `excludeOutboundPorts: "x"`, "spec.template.metadata.annotations.traffic.sidecar.istio.io/excludeOutboundPorts", "not a port"},
		{"an annotation that is not implemented", `excludeOutboundPorts: "3306"`, `kubevirtInterfaces: eth1`, "spec.template.metadata.annotations.traffic.sidecar.istio.io/kubevirtInterfaces", "not supported"},
		{"TPROXY", `traffic.sidecar.istio.io/excludeOutboundPorts: "3306"`, "sidecar.istio.io/interceptionMode: TPROXY", "spec.template.metadata.annotations.sidecar.istio.io/interceptionMode", "REDIRECT"},
		{"an annotation that asks something else of a sidecar", `traffic.sidecar.istio.io/excludeOutboundPorts: "3306"`, "sidecar.istio.io/proxyCPU: x", "spec.template.metadata.annotations.sidecar.istio.io/proxyCPU", "not supported"},
		{"an unknown injection template", `traffic.sidecar.istio.io/excludeOutboundPorts: "3306"`, "inject.istio.io/templates: grpc-agent", "spec.template.metadata.annotations.inject.istio.io/templates", "gateway"},
		{"an injection label that is neither", "version: v1}", `version: v1, sidecar.istio.io/inject: "yes"}`, "spec.template.metadata.labels.sidecar.istio.io/inject", "true"},
		{"a gateway without its container", `traffic.sidecar.istio.io/excludeOutboundPorts: "3306"`, "inject.istio.io/templates: gateway", "spec.template.spec.containers", "istio-proxy"},
		{"an SCTP port", "protocol: UDP", "protocol: SCTP", "spec.template.spec.containers[0].ports[1].protocol", "TCP or UDP"},
		{"a name that is too long", "name: reviews-v1", "name: " + strings.Repeat("a", 47), "metadata.name", "46"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("the good Deployment has no %q", tt.old)
			}
			problems := Validate(deployment(t, strings.Replace(good, tt.old, tt.new, 1)))
			if len(problems) == 0 {
				t.Fatal("accepted")
			}
			for _, p := range problems {
				if p.Field == tt.field && strings.Contains(p.Error(), tt.says) {
					return
				}
			}
			t.Errorf("no problem at %s that says %q: %v", tt.field, tt.says, problems)
		})
	}
}

func TestGatewaysTakeHostPorts(t *testing.T) {
	spec, problems := Parse(deployment(t, `
metadata: {name: gw}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}, annotations: {inject.istio.io/templates: gateway}}
    spec: {containers: [{name: istio-proxy, image: auto, ports: [{containerPort: 80, hostPort: 8080}]}]}`))
	if len(problems) > 0 || !spec.Gateway || spec.Containers[0].Ports[0].HostPort != 8080 || spec.HasSidecar(nil) {
		t.Errorf("%v %+v", problems, spec)
	}
}

func TestWhatAnAPIServerAddsIsTaken(t *testing.T) {
	if p := Validate(deployment(t, good+`
status: {replicas: 3}
`)); len(p) > 0 {
		t.Error(p)
	}
	d := deployment(t, good)
	d.UID, d.ResourceVersion, d.Generation = "u", "1", 2
	if p := Validate(d); len(p) > 0 {
		t.Error(p)
	}
}

func TestHasSidecar(t *testing.T) {
	yes, no := true, false
	off := map[string]string{LabelNamespaceInjection: "disabled"}
	tests := []struct {
		name   string
		spec   Spec
		labels map[string]string
		want   bool
	}{
		{"by default", Spec{}, nil, true},
		{"in a namespace that turns it off", Spec{}, off, false},
		{"the template's yes beats the namespace's no", Spec{Inject: &yes}, off, true},
		{"the template's no beats the default", Spec{Inject: &no}, nil, false},
		{"a gateway is a proxy itself", Spec{Gateway: true, Inject: &yes}, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.spec.HasSidecar(tt.labels); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}

func TestTheHashIsOfTheTemplateOnly(t *testing.T) {
	hash := func(old, new string) string {
		s, _ := Parse(deployment(t, strings.Replace(good, old, new, 1)))
		return s.Hash
	}
	same := hash("", "")
	if hash("replicas: 3", "replicas: 5") != same {
		t.Error("scaling changes the hash: it would restart every pod")
	}
	if hash("9080", "9081") == same {
		t.Error("another value in env does not change the hash: it would not be rolled out")
	}
	if len(same) != 8 {
		t.Errorf("hash %q: want 8 characters", same)
	}
}
