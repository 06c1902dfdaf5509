package snapshot

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/model"
)

func rule(ns, name, h string, edits ...func(*model.DestinationRule)) *model.DestinationRule {
	d := &model.DestinationRule{Meta: meta(model.KindDestinationRule, ns, name), Host: h}
	d.Policy.LB = &model.LoadBalancer{Policy: ns + "/" + name}
	for _, e := range edits {
		e(d)
	}
	return d
}

func exported(to ...string) func(*model.DestinationRule) {
	return func(d *model.DestinationRule) { d.ExportTo = to }
}

func age(days int) func(*model.DestinationRule) {
	return func(d *model.DestinationRule) { d.Created = epoch.Add(time.Duration(days) * 24 * time.Hour) }
}

func TestWhichRuleAClientFollows(t *testing.T) {
	web := host("shop", "web")
	key := ServiceKey{web, "shop"}
	tests := []struct {
		name   string
		client string
		labels map[string]string
		rules  []model.Object
		want   string
	}{
		{"none", "c", nil, nil, ""},
		{"its namespace's before the service's and the root's", "c", nil, []model.Object{rule("weft-system", "r", web), rule("shop", "s", web), rule("c", "c", web)}, "c/c"},
		{"the service's before the root's", "c", nil, []model.Object{rule("weft-system", "r", web), rule("shop", "s", web)}, "shop/s"},
		{"the root's", "c", nil, []model.Object{rule("weft-system", "r", web)}, "weft-system/r"},
		{"not the service's if it is not exported", "c", nil, []model.Object{rule("weft-system", "r", web), rule("shop", "s", web, exported("."))}, "weft-system/r"},
		{"its own also if it is exported to others only", "c", nil, []model.Object{rule("c", "c", web, exported("x"))}, "c/c"},
		{"the exact host before a wildcard of the same namespace", "c", nil, []model.Object{rule("c", "w", "*.local"), rule("c", "c", web)}, "c/c"},
		{"the longest wildcard", "c", nil, []model.Object{rule("c", "w", "*.local"), rule("c", "l", "*.shop.svc.cluster.local")}, "c/l"},
		{"a wildcard of its namespace before the exact host of the service's", "c", nil, []model.Object{rule("c", "w", "*.local"), rule("shop", "s", web)}, "c/w"},
		{"not one for another namespace's host", "c", nil, []model.Object{rule("x", "x", web)}, ""},
		{"one whose selector it matches", "c", map[string]string{"app": "a"}, []model.Object{rule("c", "all", web), rule("c", "sel", web, func(d *model.DestinationRule) { d.Selector = map[string]string{"app": "a"} })}, "c/sel"},
		{"the general one if it does not", "c", map[string]string{"app": "b"}, []model.Object{rule("c", "all", web), rule("c", "sel", web, func(d *model.DestinationRule) { d.Selector = map[string]string{"app": "a"} })}, "c/all"},
		{"no selector of another namespace", "c", map[string]string{"app": "a"}, []model.Object{rule("shop", "sel", web, func(d *model.DestinationRule) { d.Selector = map[string]string{"app": "a"} })}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if r := world(append(tt.rules, service("shop", "web"))...).Rule(tt.client, tt.labels, key); r != nil {
				got = r.Policy.LB.Policy
			}
			if got != tt.want {
				t.Errorf("rule %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRulesForOneHostInANamespaceAreMerged(t *testing.T) {
	subset := func(names ...string) func(*model.DestinationRule) {
		return func(d *model.DestinationRule) {
			for _, n := range names {
				d.Subsets = append(d.Subsets, model.Subset{Name: n, Labels: map[string]string{"from": d.Name}})
			}
		}
	}
	noPolicy := func(d *model.DestinationRule) { d.Policy = model.TrafficPolicy{} }
	web := host("shop", "web")
	w := world(service("shop", "web"), rule("shop", "young", web, age(3), subset("v1", "v3")), rule("shop", "old", web, age(1), noPolicy, subset("v1")),
		rule("shop", "middle", web, age(2), subset("v2")))
	r := w.Rule("c", nil, ServiceKey{web, "shop"})
	var got []string
	for _, s := range r.Subsets {
		got = append(got, s.Name+" of "+s.Labels["from"])
	}
	if d := cmp.Diff([]string{"v1 of old", "v2 of middle", "v3 of young"}, got); d != "" {
		t.Errorf("subsets (-want +got):\n%s", d)
	}
	if r.Policy.LB.Policy != "shop/middle" {
		t.Errorf("policy of %s, want of the oldest that has one", r.Policy.LB.Policy)
	}
	next := Build(w, put(rule("other", "x", "y.test")), epoch)
	if next.Rule("c", nil, ServiceKey{web, "shop"}) != r {
		t.Error("merged anew though nothing of it changed")
	}
}

func routes(ns, name string, days int, hosts ...string) *model.RouteSet {
	r := &model.RouteSet{Meta: meta(model.KindVirtualService, ns, name), Hosts: hosts, Gateways: []string{GatewayMesh}}
	r.Created = epoch.Add(time.Duration(days) * 24 * time.Hour)
	return r
}

func TestWhichRoutesAHostHas(t *testing.T) {
	web := host("shop", "web")
	hidden := routes("shop", "hidden", 0, web)
	hidden.ExportTo = []string{"."}
	bound := routes("shop", "bound", 0, web)
	bound.Gateways = []string{"shop/gw"}
	tests := []struct {
		name    string
		objects []model.Object
		want    string
	}{
		{"none", nil, ""},
		{"the oldest, also if the client's namespace has a newer", []model.Object{routes("c", "new", 2, web), routes("shop", "old", 1, web)}, "old"},
		{"the exact host before an older wildcard", []model.Object{routes("shop", "wild", 1, "*.local"), routes("shop", "exact", 2, web)}, "exact"},
		{"the longest wildcard", []model.Object{routes("shop", "short", 1, "*"), routes("shop", "long", 2, "*.shop.svc.cluster.local")}, "long"},
		{"not what is not exported", []model.Object{hidden}, ""},
		{"not what is bound to a gateway only", []model.Object{bound}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if r := world(tt.objects...).Routes("c", web); r != nil {
				got = r.Name
			}
			if got != tt.want {
				t.Errorf("routes %q, want %q", got, tt.want)
			}
		})
	}
}

func peer(ns, name, mode string, days int, selector map[string]string, ports map[uint16]string) *model.PeerAuthentication {
	p := &model.PeerAuthentication{Meta: meta(model.KindPeerAuthentication, ns, name), Mode: mode, Selector: selector, Ports: ports}
	p.Created = epoch.Add(time.Duration(days) * 24 * time.Hour)
	return p
}

func TestWhatAWorkloadAccepts(t *testing.T) {
	app := map[string]string{"app": "web"}
	tests := []struct {
		name     string
		policies []model.Object
		want     MTLS
	}{
		{"both, by default", nil, MTLS{Mode: model.MTLSPermissive}},
		{"what the mesh says", []model.Object{peer("weft-system", "m", model.MTLSStrict, 0, nil, nil)}, MTLS{Mode: model.MTLSStrict}},
		{"the namespace before the mesh", []model.Object{peer("weft-system", "m", model.MTLSStrict, 0, nil, nil), peer("shop", "n", model.MTLSDisable, 0, nil, nil)}, MTLS{Mode: model.MTLSDisable}},
		{"the oldest of a namespace", []model.Object{peer("shop", "new", model.MTLSDisable, 2, nil, nil), peer("shop", "old", model.MTLSStrict, 1, nil, nil)}, MTLS{Mode: model.MTLSStrict}},
		{"the workload before the namespace", []model.Object{peer("shop", "n", model.MTLSStrict, 0, nil, nil), peer("shop", "w", model.MTLSDisable, 0, app, nil)}, MTLS{Mode: model.MTLSDisable}},
		{"not another workload's", []model.Object{peer("shop", "w", model.MTLSStrict, 0, map[string]string{"app": "x"}, nil)}, MTLS{Mode: model.MTLSPermissive}},
		{"unset inherits at each level", []model.Object{peer("weft-system", "m", model.MTLSStrict, 0, nil, nil), peer("shop", "n", model.MTLSUnset, 0, nil, nil),
			peer("shop", "w", "", 0, app, map[uint16]string{80: model.MTLSUnset, 81: model.MTLSDisable})},
			MTLS{Mode: model.MTLSStrict, Ports: map[uint16]string{80: model.MTLSStrict, 81: model.MTLSDisable}}},
		{"a selector in the root namespace has no effect", []model.Object{peer("weft-system", "m", model.MTLSStrict, 0, app, nil)}, MTLS{Mode: model.MTLSPermissive}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, world(tt.policies...).PeerAuthentication("shop", app)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestWhichPoliciesAuthorizeAWorkload(t *testing.T) {
	policy := func(ns, name string, selector map[string]string) *model.AuthorizationPolicy {
		return &model.AuthorizationPolicy{Meta: meta(model.KindAuthorizationPolicy, ns, name), Action: model.AuthzAllow, Selector: selector}
	}
	app := map[string]string{"app": "web"}
	w := world(policy("weft-system", "mesh", nil), policy("weft-system", "mesh-web", app), policy("shop", "ns", nil), policy("shop", "web", app),
		policy("shop", "api", map[string]string{"app": "api"}), policy("other", "x", nil))
	var got []string
	for _, p := range w.AuthorizationPolicies("shop", app) {
		got = append(got, p.Namespace+"/"+p.Name)
	}
	if d := cmp.Diff([]string{"weft-system/mesh", "weft-system/mesh-web", "shop/ns", "shop/web"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if n := len(w.AuthorizationPolicies("weft-system", nil)); n != 1 {
		t.Errorf("%d policies in the root namespace, want 1", n)
	}
}

func TestGatewaysOfAWorkload(t *testing.T) {
	gw := func(name string, selector map[string]string) *model.Gateway {
		return &model.Gateway{Meta: meta(model.KindGateway, "any", name), Selector: selector}
	}
	w := world(gw("a", map[string]string{"app": "in"}), gw("b", map[string]string{"app": "out"}), gw("c", nil))
	var got []string
	for _, g := range w.Gateways("any", map[string]string{"app": "in", "x": "y"}) {
		got = append(got, g.Name)
	}
	if !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("gateways %q, want a and c", got)
	}
}
