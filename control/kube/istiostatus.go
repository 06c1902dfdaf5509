package kube

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"weft.mesh/weft/api/admin"
	kubesource "weft.mesh/weft/control/source/kube"
	"weft.mesh/weft/model"
)

// Conditions of Istio's kinds (IstioStatus).
const (
	conditionAccepted   = "Accepted"   // ours: the object is valid, and in force
	conditionReconciled = "Reconciled" // Istio's: proxies have it
	maxNamed            = 5            // proxies that a message names
)

// isIstio tells the kinds whose status is an IstioStatus.
func isIstio(k model.Kind) bool {
	switch k {
	case model.KindVirtualService, model.KindDestinationRule, model.KindGateway, model.KindServiceEntry, model.KindWorkloadEntry,
		model.KindPeerAuthentication, model.KindAuthorizationPolicy:
		return true
	}
	return false
}

// istio is the status of all objects of Istio's kinds.
func (s *Status) istio() map[model.Key]Wanted {
	out := map[model.Key]Wanted{}
	problems := s.set.Source.Problems()
	current, proxies := sequence(s.set.World()), sync.OnceValue(s.set.Proxies)
	for k, v := range s.set.Source.Versions() {
		if isIstio(k.Kind) {
			out[k] = s.istioStatus(k, v, problems[k], proxies, current)
		}
	}
	for k := range s.rounds {
		if _, ok := out[k]; !ok {
			delete(s.rounds, k)
		}
	}
	return out
}

// sequence is the number at the end of a World's version.
func sequence(version string) uint64 {
	n, err := strconv.ParseUint(version[strings.LastIndexByte(version, '/')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// condition is one of IstioStatus, without its times.
type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// message is one of validationMessages (Istio's AnalysisMessageBase): what it
// says is in the condition's message, for which the definitions have no room here.
type message struct {
	Type struct {
		Name string `json:"name"`
		Code string `json:"code"`
	} `json:"type"`
	Level string `json:"level"`
}

func (s *Status) istioStatus(k model.Key, v kubesource.Version, ds []admin.Diagnostic, proxies func() []admin.ProxyStatus, current uint64) Wanted {
	accepted, refused := acceptedCondition(ds)
	conditions := []condition{accepted}
	if refused {
		conditions = append(conditions, condition{conditionReconciled, "False", "Invalid", "the object is refused; what it was before, if anything, is in force"})
		delete(s.rounds, k)
	} else {
		conditions = append(conditions, s.reconciled(k, v, proxies, current))
	}
	text, _ := json.Marshal([]any{conditions, messages(ds), v.Generation}) // of plain values: it cannot fail
	return Wanted{Text: string(text), Merge: func(have map[string]any) map[string]any {
		return mergeIstio(have, conditions, messages(ds), v.Generation, time.Now())
	}}
}

func acceptedCondition(ds []admin.Diagnostic) (c condition, refused bool) {
	for _, d := range ds {
		if d.Severity == admin.SeverityError {
			return condition{conditionAccepted, "False", "Invalid", texts(ds)}, true
		}
	}
	if len(ds) > 0 {
		return condition{conditionAccepted, "True", "Warnings", texts(ds)}, false
	}
	return condition{conditionAccepted, "True", "Valid", "the object is in force"}, false
}

// texts is what was said about an object, errors first.
func texts(ds []admin.Diagnostic) string {
	var errs, warnings []string
	for _, d := range ds {
		if d.Severity == admin.SeverityError {
			errs = append(errs, textOf(d))
		} else {
			warnings = append(warnings, textOf(d))
		}
	}
	all := append(errs, warnings...)
	if len(all) > maxNamed {
		all = append(all[:maxNamed:maxNamed], fmt.Sprintf("and %d more", len(all)-maxNamed))
	}
	return strings.Join(all, "; ")
}

// textOf is a diagnostic as weft apply writes it, on one line.
func textOf(d admin.Diagnostic) string {
	out := d.Message
	if d.Field != "" {
		out = d.Field + ": " + out
	}
	if d.Value != "" {
		out += fmt.Sprintf(" (%q)", d.Value)
	}
	if d.Hint != "" {
		out += ": " + d.Hint
	}
	return out
}

func messages(ds []admin.Diagnostic) []message {
	out := []message{}
	for _, d := range ds {
		m := message{Level: "WARNING"}
		if d.Severity == admin.SeverityError {
			m.Level = "ERROR"
		}
		m.Type.Name, m.Type.Code = d.Code, d.Code
		out = append(out, m)
	}
	return out
}

// reconciled says whether all proxies have a generation of an object. Once they
// had, that stays: a later change of something else is no news about this object.
func (s *Status) reconciled(k model.Key, v kubesource.Version, proxies func() []admin.ProxyStatus, current uint64) condition {
	p := s.rounds[k]
	switch {
	case p == nil || p.generation != v.Generation:
		p = &progress{generation: v.Generation}
		s.rounds[k] = p
	case p.target == 0:
		// It was seen a round ago: whatever World there is now was built after it came.
		p.target = current
	}
	if p.done {
		return condition{conditionReconciled, "True", "Reconciled", "all proxies have it"}
	}
	if p.target == 0 {
		return condition{conditionReconciled, "Unknown", "Pending", "proxies are being told"}
	}
	var late, refused []string
	connected := 0
	for _, x := range proxies() {
		if x.Lost != nil {
			continue
		}
		connected++
		if sequence(x.World) < p.target {
			late = append(late, x.Pod+"."+x.Namespace)
		}
		for _, t := range x.Types {
			if t.State == admin.SyncRefused && t.LastNack != nil {
				refused = append(refused, x.Pod+"."+x.Namespace+": "+t.LastNack.Reason)
			}
		}
	}
	switch {
	case len(refused) > 0:
		return condition{conditionReconciled, "False", "Refused", fmt.Sprintf("%d of %d proxies refuse their configuration: %s", len(refused), connected, named(refused))}
	case len(late) > 0:
		return condition{conditionReconciled, "False", "Pending", fmt.Sprintf("%d of %d proxies have not got it: %s", len(late), connected, named(late))}
	}
	p.done = true
	return condition{conditionReconciled, "True", "Reconciled", "all proxies have it"}
}

// named lists the first few.
func named(list []string) string {
	if len(list) <= maxNamed {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:maxNamed], ", ") + fmt.Sprintf(" and %d more", len(list)-maxNamed)
}

// mergeIstio puts our conditions into a status. A condition keeps its time as
// long as it says the same; those of others stay.
func mergeIstio(have map[string]any, conditions []condition, messages []message, generation int64, now time.Time) map[string]any {
	out := map[string]any{}
	for k, v := range have {
		out[k] = v
	}
	old, _ := have["conditions"].([]any)
	list := []any{}
	at := map[string]map[string]any{}
	for _, c := range old {
		m, _ := c.(map[string]any)
		if t, _ := m["type"].(string); t == conditionAccepted || t == conditionReconciled {
			at[t] = m
			continue
		}
		list = append(list, c)
	}
	for _, c := range conditions {
		stamp := now.UTC().Format(time.RFC3339)
		if was := at[c.Type]; was != nil && was["status"] == c.Status {
			if t, ok := was["lastTransitionTime"].(string); ok {
				stamp = t
			}
		}
		list = append(list, map[string]any{"type": c.Type, "status": c.Status, "reason": c.Reason, "message": c.Message, "lastTransitionTime": stamp})
	}
	out["conditions"] = list
	out["observedGeneration"] = strconv.FormatInt(generation, 10) // an int64 in protobuf's JSON
	if len(messages) > 0 {
		out["validationMessages"] = messages
	} else {
		delete(out, "validationMessages")
	}
	return out
}
