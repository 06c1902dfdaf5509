package gatewayapi

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// nn is a namespace and a name.
type nn struct{ namespace, name string }

func (n nn) String() string { return n.namespace + "/" + n.name }

func nameOf(o metav1.Object) nn { return nn{o.GetNamespace(), o.GetName()} }

func keyOf(kind model.Kind, o metav1.Object) model.Key {
	return model.Key{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// olderObject orders by the Gateway API's rule for conflicts: creation time, then namespace and name.
func olderObject(a, b metav1.Object) int {
	return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
}

// sortedByAge gives the objects oldest first.
func sortedByAge[T metav1.Object](list []T) []T {
	out := slices.Clone(list)
	slices.SortFunc(out, func(a, b T) int { return olderObject(a, b) })
	return out
}

func or[T any](p *T, d T) T {
	if p == nil {
		return d
	}
	return *p
}

func namespaceOr(ns *gw.Namespace, own string) string {
	if ns == nil || *ns == "" {
		return own
	}
	return string(*ns)
}

// covers tells whether a host or wildcard ("", which is all, or "*.suffix") covers a host, which may be a wildcard itself. A wildcard stands for
// one label or more, so that "*.example.com" does not cover "example.com".
func covers(pattern, host string) bool {
	if pattern == "" || pattern == "*" {
		return true
	}
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return pattern == host
}

// intersect gives the more specific of two hosts; "" stands for all.
func intersect(a, b string) (string, bool) {
	switch {
	case covers(a, b):
		return b, true
	case covers(b, a):
		return a, true
	}
	return "", false
}

// specific orders hosts, the more specific first: names before wildcards, long before short.
func specific(a, b string) int {
	wa, wb := a == "" || a[0] == '*', b == "" || b[0] == '*'
	switch {
	case wa != wb && wa:
		return 1
	case wa != wb:
		return -1
	}
	return cmp.Or(len(b)-len(a), strings.Compare(a, b))
}

// anyHost is how the model writes all hosts.
func anyHost(h string) string {
	if h == "" {
		return "*"
	}
	return h
}
