package snapshot

import (
	"testing"
	"time"

	"weft.mesh/weft/model"
)

func TestPoliciesOfBothRootNamespacesHoldForTheMesh(t *testing.T) {
	put := func(ns, mode string) Change {
		k := model.Key{Kind: model.KindPeerAuthentication, Namespace: ns, Name: "default"}
		return Change{Key: k, Objects: []model.Object{&model.PeerAuthentication{Meta: model.Meta{Key: k}, Mode: mode}}}
	}
	deny := model.Key{Kind: model.KindAuthorizationPolicy, Namespace: "istio-system", Name: "deny"}
	policy := Change{Key: deny, Objects: []model.Object{&model.AuthorizationPolicy{Meta: model.Meta{Key: deny}, Action: model.AuthzDeny}}}

	w := Build(Empty(model.Mesh{}), []Change{put("istio-system", model.MTLSStrict), policy}, time.Now())
	if got := w.PeerAuthentication("shop", nil).Mode; got != model.MTLSStrict {
		t.Errorf("istio-system says STRICT, a namespace has %s", got)
	}
	if got := w.AuthorizationPolicies("shop", nil); len(got) != 1 {
		t.Errorf("%d policies of istio-system reach a namespace, want 1", len(got))
	}
	w = Build(w, []Change{put("weft-system", model.MTLSPermissive)}, time.Now())
	if got := w.PeerAuthentication("shop", nil).Mode; got != model.MTLSPermissive {
		t.Errorf("weft-system decides where both speak: %s", got)
	}
	w = Build(Empty(model.Mesh{RootNamespace: "istio-system"}), []Change{policy}, time.Now())
	if got := w.AuthorizationPolicies("shop", nil); len(got) != 1 {
		t.Errorf("%d policies when istio-system is the root namespace, want 1", len(got))
	}
}
