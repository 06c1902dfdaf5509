package analyze

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/model"
)

// checkGatewayAPI says which objects of the Gateway API have not the effect that
// they ask for: what their conditions say, and parents and classes that do not
// exist, of which no condition tells. They are warnings: the other object may come later, as in Kubernetes.
func (s *set) checkGatewayAPI() {
	c := gatewayapi.NewComputer(gatewayapi.Settings{
		Controllers: []string{gatewayapi.Controller, gatewayapi.IstioController},
		Classes:     []string{gatewayapi.ClassWeft, gatewayapi.ClassIstio},
		Selector:    map[string]string{model.GatewayNameLabel: ""}, // no deployment is waited for
	})
	found := false
	for _, it := range s.items {
		found = found || it.obj.Key.Kind.IsGatewayAPI()
		c.Put(it.obj.Key, gatewayapi.Stamped(it.obj.Value, 0, metav1.NewTime(it.obj.Meta.Created)), it.models)
	}
	if !found {
		return
	}
	c.Update()
	statuses := c.Output().Statuses
	for _, it := range s.items {
		if !it.obj.Key.Kind.IsGatewayAPI() {
			continue
		}
		if st := statuses[it.obj.Key]; st != nil {
			for _, f := range gatewayapi.Faults(st) {
				if f.Reason == string(gw.RouteReasonUnsupportedValue) {
					continue // an error of convert, with its field
				}
				s.warn(it, CodeGatewayAPI, conditionField(it, f), "", fmt.Sprintf("%s is %s (%s): %s", f.Type, f.Status, f.Reason, f.Message), gatewayapi.Hint(f))
			}
		}
		s.checkParents(it)
	}
}

// conditionField is the field that a condition is about, as far as can be told.
func conditionField(it *item, c metav1.Condition) string {
	switch it.obj.Value.(type) {
	case *gw.Gateway, *gw.ListenerSet:
		return "spec.listeners"
	case *gw.BackendTLSPolicy:
		return "spec.validation"
	case *gw.GatewayClass:
		return "spec"
	}
	if c.Type == "Accepted" {
		return "spec.parentRefs"
	}
	return "spec.rules"
}

// checkParents looks for what an object is attached to.
func (s *set) checkParents(it *item) {
	switch v := it.obj.Value.(type) {
	case *gw.Gateway:
		name := string(v.Spec.GatewayClassName)
		if name != gatewayapi.ClassWeft && name != gatewayapi.ClassIstio && s.byKey[model.Key{Kind: model.KindGatewayClass, Name: name}] == nil {
			s.warn(it, CodeUnknownParent, "spec.gatewayClassName", name, "no GatewayClass has this name, so nothing serves the Gateway", "use "+gatewayapi.ClassWeft+", or add the GatewayClass")
		}
	case *gw.ListenerSet:
		s.checkParent(it, "spec.parentRef.name", "Gateway", v.Spec.ParentRef.Namespace, string(v.Spec.ParentRef.Name))
	case *gw.HTTPRoute:
		s.checkParentRefs(it, v.Spec.ParentRefs)
	case *gw.GRPCRoute:
		s.checkParentRefs(it, v.Spec.ParentRefs)
	case *gw.TLSRoute:
		s.checkParentRefs(it, v.Spec.ParentRefs)
	case *gw.TCPRoute:
		s.checkParentRefs(it, v.Spec.ParentRefs)
	}
}

func (s *set) checkParentRefs(it *item, refs []gw.ParentReference) {
	if len(refs) == 0 {
		s.warn(it, CodeUnknownParent, "spec.parentRefs", "", "the route has no parent, and so no effect", "name a Gateway, or a Service (group \"\") for the mesh")
	}
	for i, r := range refs {
		kind := "Gateway"
		if r.Kind != nil {
			kind = string(*r.Kind)
		}
		if kind != "Service" { // of a Service the route's condition tells
			s.checkParent(it, fmt.Sprintf("spec.parentRefs[%d].name", i), kind, r.Namespace, string(r.Name))
		}
	}
}

func (s *set) checkParent(it *item, path, kind string, ns *gw.Namespace, name string) {
	k := model.Key{Kind: model.Kind(kind), Namespace: it.obj.Key.Namespace, Name: name}
	if kind == "Gateway" {
		k.Kind = model.KindK8sGateway
	}
	if ns != nil && *ns != "" {
		k.Namespace = string(*ns)
	}
	if s.byKey[k] == nil {
		s.warn(it, CodeUnknownParent, path, name, fmt.Sprintf("%s %s/%s does not exist", kind, k.Namespace, name), "correct name and namespace, or add it")
	}
}
