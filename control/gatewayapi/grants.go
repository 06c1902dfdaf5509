package gatewayapi

import (
	"fmt"

	gw "sigs.k8s.io/gateway-api/apis/v1"
)

// referrer is who refers to an object. A route of the mesh is free to lead to any Service: it changes the way to
// what its callers reach anyhow, and opens nothing (GEP-1294).
type referrer struct {
	kind, namespace string
	free            bool
}

// target is a group and kind that is referred to.
type target struct{ group, kind string }

var (
	toService   = target{"", "Service"}
	toSecret    = target{"", "Secret"}
	toConfigMap = target{"", "ConfigMap"}
)

// granted tells whether an object may be referred to: in the own namespace always, else by a ReferenceGrant in its namespace.
func (s *state) granted(from referrer, to target, ns, name string) bool {
	if from.namespace == ns || from.free {
		return true
	}
	for _, g := range s.grants[ns] {
		if grantFrom(g, from) && grantTo(g, to, name) {
			return true
		}
	}
	return false
}

func grantFrom(g *gw.ReferenceGrant, from referrer) bool {
	for _, f := range g.Spec.From {
		if f.Group == gw.GroupName && string(f.Kind) == from.kind && string(f.Namespace) == from.namespace {
			return true
		}
	}
	return false
}

func grantTo(g *gw.ReferenceGrant, to target, name string) bool {
	for _, t := range g.Spec.To {
		if string(t.Group) == to.group && string(t.Kind) == to.kind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name) {
			return true
		}
	}
	return false
}

func notGranted(to target, ns, name string, from referrer) string {
	return fmt.Sprintf("%s %s/%s may not be referred to from namespace %s: no ReferenceGrant in namespace %s allows %s of it", to.kind, ns, name, from.namespace, ns, from.kind)
}
