// Package migrate_test walks docs/kubernetes/migrate-from-istio.md on a cluster that has a real Istio: its own control plane, istioctl and agent of
// the release that testbed.IstioVersion names, and sidecars and gateways that run Envoy. Traffic flows all the time, with mutual TLS, between two
// namespaces that move one after the other. The commands are those of the guide, read from it.
//
// What is not Istio's own: the Envoy is upstream's, so that the filters which only Istio's build has (its metrics, ALPN and metadata exchange) are turned off.
package migrate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
	"weft.mesh/weft/test/kubernetes/testbed"
)

// walk is the cluster with the guide.
type walk struct {
	*guide
}

// newWalk is a cluster without any mesh: `make test-kubernetes` has one for this package alone.
func newWalk(t *testing.T) *walk {
	t.Helper()
	c := kubetest.New(t)
	if _, err := c.Try(t.Context(), "", "get", "namespace", kubetest.System); err == nil {
		t.Skip("SKIPPED: this cluster has Weft already, and the guide begins without: make test-kubernetes walks it on a cluster of its own")
	}
	for _, peer := range []string{"istio", "istioctl"} {
		if _, err := os.Stat(c.Bed.Bin(peer)); err != nil {
			t.Skipf("SKIPPED: %s is not built: run `go run ./test/kubernetes/cluster peers`", peer)
		}
	}
	archives, err := c.Bed.IstioImages(t.Context())
	if err == nil {
		err = c.Bed.Load(t.Context(), archives...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &walk{readGuide(t, c)}
}

// installIstio installs Istio of the profile default, as its users do, but for what upstream's Envoy does not have and this machine need not spend.
func (w *walk) installIstio(t *testing.T) {
	t.Helper()
	settings := []string{
		"profile=default", "hub=" + testbed.IstioHub, "tag=" + testbed.IstioVersion, "values.global.nativeNftables=true",
		"values.telemetry.enabled=false", "values.pilot.env.PILOT_ENABLE_ALPN_FILTER=false", "values.pilot.env.PILOT_ENABLE_METADATA_EXCHANGE=false",
		"values.pilot.resources.requests.cpu=10m", "values.pilot.resources.requests.memory=64Mi", "values.pilot.autoscaleEnabled=false",
		"values.global.proxy.resources.requests.cpu=10m", "values.global.proxy.resources.requests.memory=32Mi",
	}
	out, err := w.shell(t, "istioctl install -y --set "+strings.Join(settings, " --set "))
	if err != nil {
		w.Explain(t.Context(), t, "istio-system")
		t.Fatal(err)
	}
	t.Logf("istioctl install:\n%s", out)
}

// refused runs a command that has to fail, with these words.
func (w *walk) refused(t *testing.T, command string, words ...string) {
	t.Helper()
	out, err := w.shell(t, command)
	if err == nil {
		t.Errorf("%s: succeeded\n%s", command, out)
	}
	for _, want := range words {
		if !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", command, want, out)
		}
	}
}

// theirs is every object that is not Weft's, of the kinds that either brings, and what office has, by kind and name. Left out are what controllers write
// all the time, and roles that Kubernetes makes of others'.
func (w *walk) theirs(t *testing.T) map[string]string {
	t.Helper()
	lists := [][]string{
		{"-n", "istio-system", "get", "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings"},
		{"get", "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,customresourcedefinitions,gatewayclasses,ingressclasses"},
		{"get", "namespace", "istio-system", "office"}, {"-n", "office", "get", "services,configmaps,serviceaccounts,peerauthentications,authorizationpolicies,virtualservices"},
	}
	objects := map[string]string{}
	for _, args := range lists {
		var list struct{ Items []map[string]any }
		if err := json.Unmarshal([]byte(w.Kubectl(t, append(args, "-o", "json")...)), &list); err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			meta := o["metadata"].(map[string]any)
			name := fmt.Sprint(o["kind"], " ", meta["namespace"], "/", meta["name"])
			if strings.Contains(name, "weft") || strings.Contains(name, "istio-leader") || strings.Contains(name, "election") || strings.Contains(name, "ip-autoallocate") || o["aggregationRule"] != nil {
				continue
			}
			for _, volatile := range []string{"resourceVersion", "managedFields"} {
				delete(meta, volatile)
			}
			delete(o, "status")
			text, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			objects[name] = string(text)
		}
	}
	return objects
}

// untouched holds that what was there before Weft is as it was.
func (w *walk) untouched(t *testing.T, when string, before map[string]string) {
	t.Helper()
	now := w.theirs(t)
	for name, was := range before {
		if now[name] != was {
			t.Errorf("%s: %s was changed:\n%s\n%s", when, name, was, now[name])
		}
	}
	t.Logf("%s: compared %d objects of Istio's and the cluster's with what they were", when, len(before))
}

func TestTheGuide(t *testing.T) {
	w := newWalk(t)
	w.ApplyFiles(t, "", "deploy/crds/gateway-api.yaml")
	w.installIstio(t)
	w.open(t)
	w.openEdges(t)
	w.flows(t, "all Istio's")
	before := w.theirs(t)
	if len(before) < 40 {
		t.Errorf("only %d objects of Istio's to compare", len(before))
	}

	w.before(t)
	w.beside(t)
	w.flows(t, "Weft beside it")
	w.untouched(t, "Weft beside it", before)

	w.move(t, "shop")
	w.flows(t, "shop moved")
	w.bothServe(t)
	w.untouched(t, "shop moved", before)
	w.back(t, "shop")
	w.flows(t, "shop is back")
	w.move(t, "shop")
	w.move(t, "office")
	w.flows(t, "both moved")
	w.back(t, "shop")
	w.back(t, "office")
	w.flows(t, "both are back")
	w.do(t, "3", "weft uninstall")
	w.flows(t, "Weft is gone")
	w.untouched(t, "Weft is gone", before)
	w.remainsOfWeft(t)

	w.again(t)
	w.move(t, "shop")
	w.move(t, "office")
	w.moveEdges(t)
	w.flows(t, "the gateways are there twice")
	w.removeIstio(t)
	w.complete(t)
}

// again are steps 1 and 2 once more, after a rollback of all, with the authority of an Istio that had it plugged in.
func (w *walk) again(t *testing.T) {
	t.Helper()
	w.Eventually(t, time.Minute, "the namespace of Weft is gone", func(ctx context.Context) error {
		out, err := w.Try(ctx, "", "get", "namespace", kubetest.System, "--ignore-not-found", "-o", "name")
		if err != nil || out != "" {
			return fmt.Errorf("%s %v", out, err)
		}
		return nil
	})
	const plug = "kubectl -n istio-system create secret generic cacerts --from-file=ca-cert.pem --from-file=ca-key.pem --from-file=root-cert.pem=ca-cert.pem --from-file=cert-chain.pem=ca-cert.pem"
	if _, err := w.shell(t, plug); err != nil { // the files are those that step 1 wrote
		t.Fatal(err)
	}
	w.do(t, "1", "create namespace")
	w.do(t, "1", "get secret cacerts")
	w.do(t, "2", "weft install")
}

// before is step 0, with a folder like ./your-config.
func (w *walk) before(t *testing.T) {
	t.Helper()
	folder := filepath.Join(w.dir, "your-config")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "shop.yaml"), []byte(configuration("office")), 0o644); err != nil {
		t.Fatal(err)
	}
	w.do(t, "0", "./your-config")
	if out := w.do(t, "0", "kubectl get"); strings.Contains(out, "error: ") {
		t.Errorf("a sound configuration has errors:\n%s", out)
	}
}

// beside are steps 1 and 2. What is in the way is named before.
func (w *walk) beside(t *testing.T) {
	t.Helper()
	const root = "the Istio in istio-system has a root of trust, and weft-system has none yet"
	w.refused(t, "weft precheck", "injects into namespaces with the label istio-injection=enabled too", "install beside it: weft install --revision weft")
	w.refused(t, w.block(t, "2", "weft install"), root, "see step 1 of docs/kubernetes/migrate-from-istio.md")
	w.refused(t, "weft install --revision weft", root)
	w.do(t, "1", "create namespace")
	w.do(t, "1", "get secret istio-ca-secret")
	if out := w.do(t, "2", "weft install"); !strings.Contains(out, "nothing stands in the way") {
		t.Error("precheck found something")
	}
}

func (w *walk) move(t *testing.T, ns string) {
	t.Helper()
	w.run(t, ns, "istio-injection- istio.io/rev=weft")
	w.belongs(t, ns, "weft")
}

func (w *walk) back(t *testing.T, ns string) {
	t.Helper()
	w.run(t, ns, "istio.io/rev- istio-injection=enabled")
	w.belongs(t, ns, "istio")
}

// run is a block of step 3 for a namespace of this name.
func (w *walk) run(t *testing.T, ns, words string) {
	t.Helper()
	out, err := w.shell(t, strings.ReplaceAll(w.block(t, "3", words), "shop", ns))
	t.Logf("step 3 with %s:\n%s", ns, out)
	if err != nil {
		t.Fatal(err)
	}
}

// bothServe is with shop on Weft and office on Istio: each tells of its own proxies only, the VirtualService of either namespace is in force for both.
func (w *walk) bothServe(t *testing.T) {
	t.Helper()
	for command, ns := range map[string]string{"weft status": "shop", "istioctl proxy-status": "office"} {
		w.Eventually(t, time.Minute, command, func(context.Context) error {
			out, err := w.shell(t, command)
			other := others[ns]
			if err != nil || !strings.Contains(out, "."+ns) || strings.Contains(out, "."+other) {
				return fmt.Errorf("want the proxies of %s only: %v\n%s", ns, err, out)
			}
			return nil
		})
	}
	for ns, other := range others {
		w.Eventually(t, time.Minute, "the VirtualService of "+other+" at clients of "+ns, func(ctx context.Context) error {
			pods, err := w.Pods(ctx, ns, "client")
			if err != nil || len(pods) != 1 {
				return fmt.Errorf("%d pods, %v", len(pods), err)
			}
			out, err := w.PortForward(ctx, ns, pods[0].Name, 15000, "/config_dump")
			if err != nil {
				return err
			}
			if !strings.Contains(out, "x-route") {
				return errors.New("its proxy has no route that sets x-route")
			}
			return nil
		})
	}
}

// remainsOfWeft holds that nothing of an uninstalled Weft acts on the cluster any more.
func (w *walk) remainsOfWeft(t *testing.T) {
	t.Helper()
	for _, kinds := range []string{"mutatingwebhookconfigurations,validatingwebhookconfigurations,validatingadmissionpolicies", "clusterroles,clusterrolebindings", "gatewayclasses,ingressclasses"} {
		if out := w.Kubectl(t, "get", kinds, "-o", "name"); strings.Contains(out, "weft") {
			t.Errorf("of Weft is left: %s", out)
		}
	}
}

// get asks a gateway for shop's page.
func get(ctx context.Context, address string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return nil, err
	}
	req.Host, req.Close = "shop.example", true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	return resp, nil
}
