package kube

import (
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/control/kube/kubetest"
	"weft.mesh/weft/control/source/kube"
	"weft.mesh/weft/control/source/sourcetest"
	"weft.mesh/weft/model"
)

const virtual = "networking.istio.io/v1/virtualservices"

// meshView is what the writer is told of a mesh.
type meshView struct {
	World   string
	Proxies []admin.ProxyStatus
}

// view is one that a test changes.
type view struct {
	mu sync.Mutex
	v  meshView
}

func (m *view) set(v meshView) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.v = v
}

func (m *view) get() meshView {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.v
}

func at(pod, world string) admin.ProxyStatus {
	return admin.ProxyStatus{Pod: pod, Namespace: "shop", World: world}
}

func virtualService(name string, spec obj) obj {
	return obj{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": obj{"namespace": "shop", "name": name}, "spec": spec}
}

func goodSpec() obj {
	return obj{"hosts": []any{"web"}, "http": []any{obj{"route": []any{obj{"destination": obj{"host": "web"}}}}}}
}

func withStatus(t *testing.T, s *kubetest.Server, c *kubeclient.Client, edit func(*StatusSettings)) *view {
	t.Helper()
	_, _, log, _ := start(t)
	s.Install("networking.istio.io/v1", "virtualservices", "VirtualService", true)
	src := kube.New(kube.Settings{Client: c})
	r, _ := sourcetest.Start(t, src)
	r.UntilSynced()
	v := &view{v: meshView{World: "2026-11-21T22:00:00Z/5", Proxies: []admin.ProxyStatus{at("a", "x/5"), at("b", "x/5")}}}
	set := StatusSettings{Client: c, Source: src, World: func() string { return v.get().World }, Proxies: func() []admin.ProxyStatus { return v.get().Proxies }, Log: log, every: 20 * time.Millisecond}
	edit(&set)
	running(t, NewStatus(set).Run)
	return v
}

// cond is status, reason and message of a condition.
func cond(s *kubetest.Server, name, typ string) string {
	u := s.Get(virtual, "shop", name)
	st, _ := u["status"].(obj)
	list, _ := st["conditions"].([]any)
	for _, c := range list {
		if m := c.(obj); m["type"] == typ {
			return m["status"].(string) + " " + m["reason"].(string) + ": " + m["message"].(string)
		}
	}
	return ""
}

func TestStatusSaysWhatBecameOfAnObject(t *testing.T) {
	s, c, _, _ := start(t)
	v := withStatus(t, s, c, func(*StatusSettings) {})
	v.set(meshView{World: "x/7", Proxies: []admin.ProxyStatus{at("a", "x/7"), at("b", "x/5")}})
	other := virtualService("a", goodSpec())
	other["status"] = obj{"conditions": []any{obj{"type": "Theirs", "status": "True"}}, "mine": "kept"}
	s.Put(virtual, other)
	eventually(t, "it is not accepted", func() bool { return strings.HasPrefix(cond(s, "a", "Accepted"), "True Valid") })
	eventually(t, "nobody says which proxy is late", func() bool {
		return cond(s, "a", "Reconciled") == "False Pending: 1 of 2 proxies have not got it: b.shop"
	})
	v.set(meshView{World: "x/7", Proxies: []admin.ProxyStatus{at("a", "x/7"), at("b", "x/7")}})
	eventually(t, "it is not reconciled", func() bool { return cond(s, "a", "Reconciled") == "True Reconciled: all proxies have it" })
	u := s.Get(virtual, "shop", "a")["status"].(obj)
	if u["mine"] != "kept" || u["observedGeneration"] != "1" || cond(s, "a", "Accepted") == "" || len(u["conditions"].([]any)) != 3 {
		t.Errorf("status %v", u)
	}
	// What changes elsewhere is no news about this object.
	writes := len(s.Writes())
	v.set(meshView{World: "x/9", Proxies: []admin.ProxyStatus{at("a", "x/7"), at("b", "x/7"), at("c", "x/1")}})
	bad := goodSpec()
	bad["httpp"] = []any{}
	s.Put(virtual, virtualService("b", bad))
	eventually(t, "it is not refused", func() bool { return strings.HasPrefix(cond(s, "b", "Accepted"), "False Invalid: spec.httpp: ") })
	if !strings.HasPrefix(cond(s, "b", "Reconciled"), "False Invalid") || len(s.Get(virtual, "shop", "b")["status"].(obj)["validationMessages"].([]any)) == 0 {
		t.Errorf("status %v", s.Get(virtual, "shop", "b")["status"])
	}
	// Each of these is written in a later round, after a and b had their turn in it.
	for _, name := range []string{"c", "d", "e"} {
		s.Put(virtual, virtualService(name, bad))
		eventually(t, name+" is not refused", func() bool { return strings.HasPrefix(cond(s, name, "Accepted"), "False Invalid: spec.httpp: ") })
	}
	if n := len(s.Writes()) - writes; n != 4 {
		t.Errorf("%d writes, want one of b, c, d and e: %v", n, s.Writes()[writes:])
	}
}

func TestAProxyThatRefusesIsNamed(t *testing.T) {
	s, c, _, _ := start(t)
	v := withStatus(t, s, c, func(*StatusSettings) {})
	p := at("a", "x/5")
	p.Types = map[string]admin.TypeStatus{"RDS": {State: admin.SyncRefused, LastNack: &admin.Nack{Reason: "route: no"}}}
	v.set(meshView{World: "x/6", Proxies: []admin.ProxyStatus{p}})
	s.Put(virtual, virtualService("a", goodSpec()))
	eventually(t, "the refusal is not in the status", func() bool {
		return cond(s, "a", "Reconciled") == "False Refused: 1 of 1 proxies refuse their configuration: a.shop: route: no"
	})
}

func TestALeaderWritesNothingThatIsThere(t *testing.T) {
	s, c, _, _ := start(t)
	withStatus(t, s, c, func(*StatusSettings) {})
	s.Put(virtual, virtualService("a", goodSpec()))
	eventually(t, "it is not reconciled", func() bool { return strings.HasPrefix(cond(s, "a", "Reconciled"), "True") })
	before := s.Get(virtual, "shop", "a")
	have := before["status"].(obj)
	again := mergeIstio(have, []condition{{conditionAccepted, "True", "Valid", "the object is in force"}, {conditionReconciled, "True", "Reconciled", "all proxies have it"}}, nil, 1, time.Now().Add(time.Hour))
	if !sameJSON(have, plain(again)) {
		t.Errorf("the same said again is another status:\n%v\n%v", have, again)
	}
}

func TestStatusOfOtherKindsIsMerged(t *testing.T) {
	s, c, _, _ := start(t)
	s.Install("gateway.networking.k8s.io/v1", "gatewayclasses", "GatewayClass", false)
	key := model.Key{Kind: model.KindGatewayClass, Name: "weft"}
	s.Put("gateway.networking.k8s.io/v1/gatewayclasses", obj{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": obj{"name": "weft"}})
	withStatus(t, s, c, func(set *StatusSettings) {
		set.Wanted = func() map[model.Key]Wanted {
			return map[model.Key]Wanted{key: {Text: "1", Merge: func(have map[string]any) map[string]any {
				return map[string]any{"conditions": []any{obj{"type": "Accepted", "status": "True"}}}
			}}}
		}
	})
	eventually(t, "it is not written", func() bool {
		st, _ := s.Get("gateway.networking.k8s.io/v1/gatewayclasses", "", "weft")["status"].(obj)
		return st["conditions"] != nil
	})
}

func TestWebhooksOfOursHaveOurCA(t *testing.T) {
	s, c, log, _ := start(t)
	const key = "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	hook := func(ns, svc, ca string) obj {
		return obj{"name": "x", "clientConfig": obj{"caBundle": ca, "service": obj{"namespace": ns, "name": svc}}}
	}
	s.Put(key, obj{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": obj{"name": "weft-sidecar-injector"},
		"webhooks": []any{hook("weft-system", "weft", ""), hook("other", "theirs", "dGhlaXJz"), hook("weft-system", "weft", "b2xk")}})
	running(t, (&CABundles{Client: c, Namespace: "weft-system", Service: "weft", Roots: func() []byte { return []byte("ROOT") }, Log: log}).Run)
	bundles := func() string {
		var out []string
		for _, h := range s.Get(key, "", "weft-sidecar-injector")["webhooks"].([]any) {
			text, _ := h.(obj)["clientConfig"].(obj)["caBundle"].(string)
			b, _ := base64.StdEncoding.DecodeString(text)
			out = append(out, string(b))
		}
		return strings.Join(out, ",")
	}
	eventually(t, "our webhooks have not our CA", func() bool { return bundles() == "ROOT,theirs,ROOT" })
	s.Put(key, obj{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": obj{"name": "weft-sidecar-injector"},
		"webhooks": []any{hook("weft-system", "weft", "")}})
	eventually(t, "somebody applied it again, and the CA is gone", func() bool { return bundles() == "ROOT" })
}
