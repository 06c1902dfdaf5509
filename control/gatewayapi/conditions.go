package gatewayapi

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"
)

// verdict is a condition before it has a type: good, or why not.
type verdict struct {
	bad     bool
	reason  string
	message string
}

func no[R ~string](reason R, message string) verdict { return verdict{true, string(reason), message} }

// condition makes a condition of positive polarity.
func condition[T, R ~string](typ T, v verdict, good R, message string, generation int64) metav1.Condition {
	c := metav1.Condition{Type: string(typ), Status: metav1.ConditionTrue, Reason: string(good), Message: message, ObservedGeneration: generation}
	if v.bad {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v.reason, v.message
	}
	return c
}

// MergeConditions gives wanted the transition times of the conditions of the
// same type and status that were there, now to the others, and keeps what was there of
// types that are not in wanted and in types that others own (keep tells them; nil: none).
func MergeConditions(was, wanted []metav1.Condition, now time.Time, keep func(conditionType string) bool) []metav1.Condition {
	out := slices.Clone(wanted)
	find := func(list []metav1.Condition, typ string) *metav1.Condition {
		i := slices.IndexFunc(list, func(c metav1.Condition) bool { return c.Type == typ })
		if i < 0 {
			return nil
		}
		return &list[i]
	}
	for i := range out {
		out[i].LastTransitionTime = metav1.NewTime(now.UTC().Truncate(time.Second))
		if old := find(was, out[i].Type); old != nil && old.Status == out[i].Status && !old.LastTransitionTime.IsZero() {
			out[i].LastTransitionTime = old.LastTransitionTime
		}
	}
	for _, c := range was {
		if keep != nil && keep(c.Type) && find(out, c.Type) == nil {
			out = append(out, c)
		}
	}
	return out
}

// MergeParents sets the parents of a route's status that are ours (by
// controller name) to wanted, with their transition times, and keeps others'.
func MergeParents(was, wanted []gw.RouteParentStatus, ours func(gw.GatewayController) bool, now time.Time) []gw.RouteParentStatus {
	out := []gw.RouteParentStatus{}
	for _, p := range was {
		if !ours(p.ControllerName) {
			out = append(out, p)
		}
	}
	for _, p := range wanted {
		var old []metav1.Condition
		for _, w := range was {
			if w.ControllerName == p.ControllerName && sameParent(w.ParentRef, p.ParentRef) {
				old = w.Conditions
			}
		}
		p.Conditions = MergeConditions(old, p.Conditions, now, nil)
		out = append(out, p)
	}
	return out
}

// MergeAncestors is MergeParents for policies.
func MergeAncestors(was, wanted []gw.PolicyAncestorStatus, ours func(gw.GatewayController) bool, now time.Time) []gw.PolicyAncestorStatus {
	out := []gw.PolicyAncestorStatus{}
	for _, p := range was {
		if !ours(p.ControllerName) {
			out = append(out, p)
		}
	}
	for _, p := range wanted {
		var old []metav1.Condition
		for _, w := range was {
			if w.ControllerName == p.ControllerName && sameParent(w.AncestorRef, p.AncestorRef) {
				old = w.Conditions
			}
		}
		p.Conditions = MergeConditions(old, p.Conditions, now, nil)
		out = append(out, p)
	}
	return out
}

// Merge gives a wanted status the transition times of the one that was there, and keeps what other controllers wrote.
func Merge(was, wanted *Status, ours func(gw.GatewayController) bool, now time.Time) *Status {
	if was == nil {
		was = &Status{}
	}
	out := &Status{}
	switch {
	case wanted.Class != nil:
		s := *wanted.Class
		s.Conditions = MergeConditions(or(was.Class, gw.GatewayClassStatus{}).Conditions, s.Conditions, now, nil)
		out.Class = &s
	case wanted.Gateway != nil:
		s, old := *wanted.Gateway, or(was.Gateway, gw.GatewayStatus{})
		s.Conditions = MergeConditions(old.Conditions, s.Conditions, now, nil)
		s.Listeners = slices.Clone(s.Listeners)
		for i := range s.Listeners {
			l := &s.Listeners[i]
			j := slices.IndexFunc(old.Listeners, func(o gw.ListenerStatus) bool { return o.Name == l.Name })
			var conds []metav1.Condition
			if j >= 0 {
				conds = old.Listeners[j].Conditions
			}
			l.Conditions = MergeConditions(conds, l.Conditions, now, nil)
		}
		out.Gateway = &s
	case wanted.ListenerSet != nil:
		s, old := *wanted.ListenerSet, or(was.ListenerSet, gw.ListenerSetStatus{})
		s.Conditions = MergeConditions(old.Conditions, s.Conditions, now, nil)
		s.Listeners = slices.Clone(s.Listeners)
		for i := range s.Listeners {
			l := &s.Listeners[i]
			j := slices.IndexFunc(old.Listeners, func(o gw.ListenerEntryStatus) bool { return o.Name == l.Name })
			var conds []metav1.Condition
			if j >= 0 {
				conds = old.Listeners[j].Conditions
			}
			l.Conditions = MergeConditions(conds, l.Conditions, now, nil)
		}
		out.ListenerSet = &s
	case wanted.Route != nil:
		out.Route = &gw.RouteStatus{Parents: MergeParents(or(was.Route, gw.RouteStatus{}).Parents, wanted.Route.Parents, ours, now)}
	case wanted.Policy != nil:
		out.Policy = &gw.PolicyStatus{Ancestors: MergeAncestors(or(was.Policy, gw.PolicyStatus{}).Ancestors, wanted.Policy.Ancestors, ours, now)}
	}
	return out
}

func sameParent(a, b gw.ParentReference) bool {
	return or(a.Group, gw.GroupName) == or(b.Group, gw.GroupName) && or(a.Kind, "Gateway") == or(b.Kind, "Gateway") && or(a.Namespace, "") == or(b.Namespace, "") &&
		a.Name == b.Name && or(a.SectionName, "") == or(b.SectionName, "") && cmp.Compare(or(a.Port, 0), or(b.Port, 0)) == 0
}
