package migrate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/load"
)

const rate = 20 // requests a second from each namespace to the other

// Each of the two namespaces has a server that takes only mutual TLS, and only from the client of the other namespace and from gateways, whose
// answers a VirtualService puts a header on; and a client of the other namespace's server.
const mesh = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: client}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/OTHER/sa/client]}}]
    to: [{operation: {methods: [GET]}}]
  - from: [{source: {namespaces: [istio-system, weft-system, edge]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{headers: {response: {set: {x-route: virtual-service}}}, route: [{destination: {host: web}}]}]
`

const programs = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      serviceAccountName: web
      terminationGracePeriodSeconds: 20
      containers:
      - name: web
        image: localhost/testapp:1
        ports: [{containerPort: 8080}]
        lifecycle: {preStop: {sleep: {seconds: 3}}} # until nobody sends it anything any more
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client, version: v1}}
    spec:
      serviceAccountName: client
      terminationGracePeriodSeconds: 5
      containers: [{name: client, image: localhost/testapp:1, args: [load, "http://web.OTHER/", "20"]}]
`

// configuration is what the mesh reads of a namespace, given the other.
func configuration(other string) string { return strings.ReplaceAll(mesh, "OTHER", other) }

// others is the namespace that each sends requests to.
var others = map[string]string{"shop": "office", "office": "shop"}

// open deploys the two, as Istio's.
func (w *walk) open(t *testing.T) {
	t.Helper()
	for ns, other := range others {
		w.Namespace(t, ns, "istio-injection=enabled")
		w.Apply(t, ns, configuration(other)+"---"+strings.ReplaceAll(programs, "OTHER", other))
	}
	for ns := range others {
		w.Ready(t, ns)
	}
	for ns := range others { // what they sent before there was anybody to answer is nobody's fault
		w.Kubectl(t, "-n", ns, "rollout", "restart", "deployment/client")
		w.belongs(t, ns, "istio")
	}
}

// result is what became of a client's requests since it started or was asked last.
func (w *walk) result(ctx context.Context, ns string) (*load.Result, error) {
	pods, err := w.Pods(ctx, ns, "client")
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		if p.Going {
			continue
		}
		text, err := w.PortForward(ctx, ns, p.Name, 8081, "/result")
		if err != nil {
			return nil, err
		}
		var r load.Result
		return &r, json.Unmarshal([]byte(text), &r)
	}
	return nil, fmt.Errorf("no client in %s: %d pods", ns, len(pods))
}

// flows holds that both namespaces' requests are answered, and of those since the clients started that none was lost. One in a hundred may
// have had no answer in the 5 s that the client waits: on a busy machine Istio alone has such.
func (w *walk) flows(t *testing.T, when string) {
	t.Helper()
	for _, ns := range []string{"shop", "office"} {
		var first, last *load.Result
		w.Eventually(t, time.Minute, when+": requests of "+ns, func(ctx context.Context) (err error) {
			if last, err = w.result(ctx, ns); err != nil {
				return err
			}
			if first == nil {
				first = last
			}
			if last.Good < first.Good+rate {
				return fmt.Errorf("%d answers, then %d\n%s", first.Good, last.Good, last)
			}
			return nil
		})
		t.Logf("%s: requests of %s: %s", when, ns, last)
		slow := 0
		for why, n := range last.Bad {
			if strings.Contains(why, "deadline exceeded") {
				slow += n
			}
		}
		if last.Lost() > slow || slow*100 > last.Sent {
			t.Errorf("%s: of %d requests of %s %d were lost, and %d had no answer in 5 s", when, last.Sent, ns, last.Lost()-slow, slow)
		}
	}
}

// sidecars is the image of each pod's sidecar, in the order of the pods.
func (w *walk) sidecars(t *testing.T, ns string) []string {
	t.Helper()
	return strings.Fields(w.Kubectl(t, "-n", ns, "get", "pods", "-o", `jsonpath={range .items[?(@.status.phase=="Running")]}{.spec.containers[?(@.name=="istio-proxy")].image}{.spec.initContainers[?(@.name=="istio-proxy")].image}{"\n"}{end}`))
}

// belongs waits until all pods of a namespace have this mesh's sidecar: "istio" or "weft".
func (w *walk) belongs(t *testing.T, ns, mesh string) {
	t.Helper()
	w.Ready(t, ns)
	want := map[string]string{"istio": "localhost/istio/proxyv2:", "weft": "weft/proxy:"}[mesh]
	w.Eventually(t, 2*time.Minute, ns+" belongs to "+mesh, func(context.Context) error {
		images := w.sidecars(t, ns)
		for _, i := range images {
			if !strings.HasPrefix(i, want) {
				return fmt.Errorf("it has the sidecars %q", images)
			}
		}
		if len(images) != 2 {
			return fmt.Errorf("%d sidecars: %q", len(images), images)
		}
		return nil
	})
}
