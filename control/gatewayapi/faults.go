package gatewayapi

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CodeCondition is the code of diagnostics that tell a condition.
const CodeCondition = "gateway-api-condition"

// Faults lists the conditions of a status that say that the object has not the
// effect that it asks for. What only waits for a deployment is no fault.
func Faults(s *Status) []metav1.Condition {
	var out []metav1.Condition
	seen := map[string]bool{}
	add := func(cs []metav1.Condition) {
		for _, c := range cs {
			if !fault(c) || seen[c.Type+c.Reason+c.Message] {
				continue
			}
			seen[c.Type+c.Reason+c.Message] = true
			out = append(out, c)
		}
	}
	switch {
	case s.Class != nil:
		add(s.Class.Conditions)
	case s.Gateway != nil:
		for _, l := range s.Gateway.Listeners {
			add(l.Conditions)
		}
		if len(out) == 0 {
			add(s.Gateway.Conditions)
		}
	case s.ListenerSet != nil:
		for _, l := range s.ListenerSet.Listeners {
			add(l.Conditions)
		}
		if len(out) == 0 {
			add(s.ListenerSet.Conditions)
		}
	case s.Route != nil:
		for _, p := range s.Route.Parents {
			add(p.Conditions)
		}
	case s.Policy != nil:
		for _, a := range s.Policy.Ancestors {
			add(a.Conditions)
		}
	}
	return out
}

func fault(c metav1.Condition) bool {
	switch c.Type {
	case "Accepted", "ResolvedRefs":
		return c.Status == metav1.ConditionFalse && c.Reason != "Pending"
	case "PartiallyInvalid":
		return c.Status == metav1.ConditionTrue
	}
	return false
}

var hints = map[string]string{
	"NoMatchingParent":           "name a listener that the parent has in sectionName and port, or remove them",
	"NotAllowedByListeners":      "open the listener: allowedRoutes.namespaces and allowedRoutes.kinds",
	"NoMatchingListenerHostname": "give the route a host that a listener has, or the listener a wildcard",
	"BackendNotFound":            "create the Service, or correct name, namespace and port",
	"RefNotPermitted":            "create a ReferenceGrant in the namespace that is referred to",
	"InvalidKind":                "refer to a Service",
	"UnsupportedValue":           "remove what is not supported",
	"InvalidCertificateRef":      "create a Secret of type kubernetes.io/tls with tls.crt and tls.key",
	"NoValidCACertificate":       "create a ConfigMap with the certificates in ca.crt",
	"HostnameConflict":           "give the listener a hostname of its own",
	"ProtocolConflict":           "give the listener a port of its own",
	"NotAllowed":                 "let the Gateway allow it: spec.allowedListeners.namespaces",
	"Conflicted":                 "remove one of the two",
	"InvalidRouteKinds":          "remove the kind from allowedRoutes.kinds",
}

// Hint says what to do about a condition that is a fault.
func Hint(c metav1.Condition) string {
	if h := hints[c.Reason]; h != "" {
		return h
	}
	return "see the object's status"
}
