package kube

import (
	"fmt"
	"strings"
	"testing"
)

// A node's taint goes when the agent there is ready, and only that taint.
func TestUntaint(t *testing.T) {
	s, c, log, _ := start(t)
	node := func(name string, taints ...any) {
		s.Put("v1/nodes", obj{"apiVersion": "v1", "kind": "Node", "metadata": obj{"name": name}, "spec": obj{"podCIDR": "10.0.0.0/24", "taints": taints}})
	}
	agent := func(name, on, label, ready string) {
		s.Put("v1/pods", obj{"apiVersion": "v1", "kind": "Pod", "metadata": obj{"namespace": "kube-system", "name": name, "labels": obj{"k8s-app": label}},
			"spec": obj{"nodeName": on}, "status": obj{"conditions": []any{obj{"type": "Ready", "status": ready}}}})
	}
	taint := func(key string) any { return obj{"key": key, "effect": "NoSchedule"} }
	taints := func(name string) string { return fmt.Sprint(s.Get("v1/nodes", "", name)["spec"].(obj)["taints"]) }
	for _, n := range []string{"n1", "n2", "n3"} {
		node(n, taint(NotReadyTaint), taint("other"))
	}
	agent("weft-cni-node-1", "n1", "weft-cni-node", "True")
	agent("weft-cni-node-2", "n2", "weft-cni-node", "False")
	agent("impostor", "n3", "something", "True")
	running(t, (&Untaint{Client: c, Namespace: "kube-system", Log: log}).Run)
	eventually(t, "the node of a ready agent keeps its taint", func() bool { return !strings.Contains(taints("n1"), NotReadyTaint) })
	if got := taints("n1"); !strings.Contains(got, "other") {
		t.Errorf("another's taint is gone: %s", got)
	}
	agent("weft-cni-node-2", "n2", "weft-cni-node", "True")
	eventually(t, "the node of an agent that becomes ready keeps its taint", func() bool { return !strings.Contains(taints("n2"), NotReadyTaint) })
	node("n1", taint(NotReadyTaint), taint("other")) // the node registers again
	eventually(t, "a node that comes back keeps its taint", func() bool { return !strings.Contains(taints("n1"), NotReadyTaint) })
	if got := taints("n3"); !strings.Contains(got, NotReadyTaint) {
		t.Errorf("a node without an agent: %s", got)
	}
	if n := len(s.Writes()); n != 3 {
		t.Errorf("%d writes, want 3: %v", n, s.Writes())
	}
}
