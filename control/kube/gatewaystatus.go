package kube

import (
	"encoding/json"
	"time"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/model"
)

// GatewayStatuses are the statuses of objects of the Gateway API as they have to
// be written: conditions keep the time of their last change, and what other
// controllers wrote of a route or policy stays. ours tells which controllers are we.
func GatewayStatuses(all map[model.Key]*gatewayapi.Status, ours func(gw.GatewayController) bool) map[model.Key]Wanted {
	out := make(map[model.Key]Wanted, len(all))
	for k, st := range all {
		text, err := json.Marshal(st.Value())
		if err != nil {
			continue // of the API's own types: it cannot fail
		}
		out[k] = Wanted{Text: string(text), Merge: func(have map[string]any) map[string]any {
			return mergeGateway(have, st, ours, time.Now())
		}}
	}
	return out
}

// mergeGateway puts a status into the one that an object has.
func mergeGateway(have map[string]any, want *gatewayapi.Status, ours func(gw.GatewayController) bool, now time.Time) map[string]any {
	text, err := json.Marshal(have)
	if err != nil {
		return have
	}
	merged, err := json.Marshal(gatewayapi.Merge(statusOf(text, want), want, ours, now).Value())
	if err != nil {
		return have
	}
	var out map[string]any
	if json.Unmarshal(merged, &out) != nil {
		return have
	}
	return out
}

// statusOf reads a status of the same kind as like; what cannot be read is none.
func statusOf(text []byte, like *gatewayapi.Status) *gatewayapi.Status {
	out := &gatewayapi.Status{}
	read := func(v any) bool { return json.Unmarshal(text, v) == nil }
	switch {
	case like.Class != nil:
		if v := new(gw.GatewayClassStatus); read(v) {
			out.Class = v
		}
	case like.Gateway != nil:
		if v := new(gw.GatewayStatus); read(v) {
			out.Gateway = v
		}
	case like.ListenerSet != nil:
		if v := new(gw.ListenerSetStatus); read(v) {
			out.ListenerSet = v
		}
	case like.Route != nil:
		if v := new(gw.RouteStatus); read(v) {
			out.Route = v
		}
	case like.Policy != nil:
		if v := new(gw.PolicyStatus); read(v) {
			out.Policy = v
		}
	}
	return out
}
