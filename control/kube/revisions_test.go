package kube

import (
	"fmt"
	"strings"
	"testing"
)

const hooks = "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"

func TestAnObjectBelongsToOneRevision(t *testing.T) {
	set := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	for _, c := range []struct {
		name, label string
		tags        map[string]string
		installed   map[string]bool
		want        string
	}{
		{"nothing is known: who asks", "", nil, nil, "me"},
		{"no label: the default", "", nil, set("default", "v2"), "default"},
		{"no label and no default: the first", "", nil, set("v3", "v2"), "v2"},
		{"no label and a tag default", "", map[string]string{"default": "v2"}, set("default", "v2"), "v2"},
		{"a tag default of a revision that is gone", "", map[string]string{"default": "v1"}, set("default", "v2"), "default"},
		{"the revision by name", "v2", nil, set("default", "v2"), "v2"},
		{"a tag", "prod", map[string]string{"prod": "v2"}, set("default", "v2"), "v2"},
		{"another mesh's revision", "1-30", nil, set("default", "v2"), "default"},
		{"a revision that was uninstalled", "v1", nil, set("v2"), "v2"},
	} {
		if got := owner(c.label, c.tags, c.installed, "me"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func hook(name, rev, tag string) obj {
	return obj{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": obj{
		"name": name, "labels": obj{"app.kubernetes.io/name": "weft", "istio.io/rev": rev, "istio.io/tag": tag}}}
}

func space(name string, labels obj) obj {
	return obj{"apiVersion": "v1", "kind": "Namespace", "metadata": obj{"name": name, "labels": labels}}
}

// Two leaders never agree that an object is both's, and each follows labels, tags and what is uninstalled.
func TestRevisionsDivideObjects(t *testing.T) {
	s, c, log, _ := start(t)
	for _, h := range []obj{hook("weft-sidecar-injector", "default", ""), hook("weft-sidecar-injector-v2", "v2", ""), hook("weft-revision-tag-prod", "default", "prod")} {
		s.Put(hooks, h)
	}
	s.Put("v1/namespaces", space("shop", obj{"istio.io/rev": "prod"}))
	s.Put("v1/namespaces", space("new", obj{"istio.io/rev": "v2"}))
	s.Put("v1/namespaces", space("both", obj{"istio.io/rev": "v2", "istio-injection": "enabled"}))
	s.Put("v1/namespaces", space("plain", nil))
	old, canary := &Revisions{Client: c, Own: "", Log: log}, &Revisions{Client: c, Own: "v2", Log: log}
	if old.Mine("shop", "") {
		t.Error("before anything was read an object was somebody's")
	}
	running(t, old.Run)
	running(t, canary.Run)
	is := func(ns, label string, want *Revisions) func() bool {
		return func() bool {
			return old.Mine(ns, label) == (want == old) && canary.Mine(ns, label) == (want == canary)
		}
	}
	for _, x := range []struct {
		ns, label string
		want      *Revisions
	}{
		{"shop", "", old}, {"shop", "v2", canary}, {"new", "", canary}, {"new", "default", old}, {"both", "", old}, {"plain", "", old}, {"", "", old}, {"plain", "1-30", old},
	} {
		eventually(t, fmt.Sprintf("namespace %q, label %q", x.ns, x.label), is(x.ns, x.label, x.want))
	}
	s.Put(hooks, hook("weft-revision-tag-prod", "v2", "prod"))
	eventually(t, "the tag was moved", is("shop", "", canary))
	s.Delete(hooks, "", "weft-sidecar-injector-v2")
	eventually(t, "the canary was uninstalled", is("new", "", old))
}

func TestTheStatusOfAnotherRevisionsObjectIsLeftAlone(t *testing.T) {
	s, c, _, _ := start(t)
	withStatus(t, s, c, func(set *StatusSettings) {
		set.Mine = func(ns, rev string) bool { return ns == "shop" && rev == "" }
	})
	other := virtualService("a-theirs", goodSpec())
	other["metadata"].(obj)["labels"] = obj{"istio.io/rev": "v2"}
	s.Put(virtual, other)
	s.Put(virtual, virtualService("b-ours", goodSpec())) // written after it in each round
	eventually(t, "no status of our own", func() bool { return strings.HasPrefix(cond(s, "b-ours", "Accepted"), "True") })
	if got := cond(s, "a-theirs", "Accepted"); got != "" {
		t.Errorf("another revision's object got the status %s", got)
	}
}
