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
	return mergeRefs(was, wanted, ours, now, func(p *gw.RouteParentStatus) ref { return ref{p.ControllerName, p.ParentRef, &p.Conditions} })
}

// MergeAncestors is MergeParents for policies.
func MergeAncestors(was, wanted []gw.PolicyAncestorStatus, ours func(gw.GatewayController) bool, now time.Time) []gw.PolicyAncestorStatus {
	return mergeRefs(was, wanted, ours, now, func(p *gw.PolicyAncestorStatus) ref { return ref{p.ControllerName, p.AncestorRef, &p.Conditions} })
}

// ref is what entries of both lists have: whose they are, about what, and what they say.
type ref struct {
	controller gw.GatewayController
	to         gw.ParentReference
	conditions *[]metav1.Condition
}

func mergeRefs[T any](was, wanted []T, ours func(gw.GatewayController) bool, now time.Time, of func(*T) ref) []T {
	out := []T{}
	for i := range was {
		if !ours(of(&was[i]).controller) {
			out = append(out, was[i])
		}
	}
	for _, p := range wanted { // copies, of which the conditions are set
		r := of(&p)
		var old []metav1.Condition
		for i := range was {
			if w := of(&was[i]); w.controller == r.controller && sameParent(w.to, r.to) {
				old = *w.conditions
			}
		}
		*r.conditions = MergeConditions(old, *r.conditions, now, nil)
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
		s.Listeners = mergeListeners(old.Listeners, s.Listeners, now, func(l *gw.ListenerStatus) (gw.SectionName, *[]metav1.Condition) { return l.Name, &l.Conditions })
		out.Gateway = &s
	case wanted.ListenerSet != nil:
		s, old := *wanted.ListenerSet, or(was.ListenerSet, gw.ListenerSetStatus{})
		s.Conditions = MergeConditions(old.Conditions, s.Conditions, now, nil)
		s.Listeners = mergeListeners(old.Listeners, s.Listeners, now, func(l *gw.ListenerEntryStatus) (gw.SectionName, *[]metav1.Condition) { return l.Name, &l.Conditions })
		out.ListenerSet = &s
	case wanted.Route != nil:
		out.Route = &gw.RouteStatus{Parents: MergeParents(or(was.Route, gw.RouteStatus{}).Parents, wanted.Route.Parents, ours, now)}
	case wanted.Policy != nil:
		out.Policy = &gw.PolicyStatus{Ancestors: MergeAncestors(or(was.Policy, gw.PolicyStatus{}).Ancestors, wanted.Policy.Ancestors, ours, now)}
	}
	return out
}

// mergeListeners gives the conditions of listeners the transition times that those of the same name had.
func mergeListeners[T any](was, wanted []T, now time.Time, of func(*T) (gw.SectionName, *[]metav1.Condition)) []T {
	out := slices.Clone(wanted)
	for i := range out {
		name, conditions := of(&out[i])
		var old []metav1.Condition
		for j := range was {
			if n, c := of(&was[j]); n == name {
				old = *c
				break
			}
		}
		*conditions = MergeConditions(old, *conditions, now, nil)
	}
	return out
}

func sameParent(a, b gw.ParentReference) bool {
	return or(a.Group, gw.GroupName) == or(b.Group, gw.GroupName) && or(a.Kind, "Gateway") == or(b.Kind, "Gateway") && or(a.Namespace, "") == or(b.Namespace, "") &&
		a.Name == b.Name && or(a.SectionName, "") == or(b.SectionName, "") && cmp.Compare(or(a.Port, 0), or(b.Port, 0)) == 0
}
