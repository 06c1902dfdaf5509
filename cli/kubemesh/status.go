package kubemesh

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"weft.mesh/weft/api/admin"
)

// getStatus joins what all replicas say: each knows the proxies that are connected to it.
func (m *Mesh) getStatus(w http.ResponseWriter, r *http.Request) {
	ps, err := m.Planes(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	answers, errs := m.each(r.Context(), ps, admin.PathStatus)
	var all []admin.ControlStatus
	var silent []admin.Diagnostic
	for i := range ps {
		var st admin.ControlStatus
		if errs[i] == nil {
			errs[i] = json.Unmarshal(answers[i], &st)
		}
		if errs[i] != nil {
			silent = append(silent, admin.Diagnostic{Severity: admin.SeverityWarning, Code: "replica-silent",
				Message: fmt.Sprintf("its proxies are missing here: %v", errs[i]), Object: "Pod " + m.Namespace + "/" + ps[i].Name})
			continue
		}
		all = append(all, st)
	}
	if len(all) == 0 {
		fail(w, errs[0])
		return
	}
	st := join(all)
	st.Problems = append(st.Problems, silent...)
	writeJSON(w, st)
}

// join makes one status of those of all replicas. A proxy that has gone from one to another is listed once, where it is now.
func join(all []admin.ControlStatus) admin.ControlStatus {
	out := all[0]
	byID := map[string]admin.ProxyStatus{}
	for _, st := range all {
		if st.Started.Before(out.Started) {
			out.Started = st.Started
		}
		for _, p := range st.Proxies {
			if have, ok := byID[p.ID]; !ok || newer(p, have) {
				byID[p.ID] = p
			}
		}
	}
	out.Proxies = []admin.ProxyStatus{}
	for _, p := range byID {
		out.Proxies = append(out.Proxies, p)
	}
	slices.SortFunc(out.Proxies, func(a, b admin.ProxyStatus) int {
		return strings.Compare(a.Namespace+"/"+a.Pod+"/"+a.ID, b.Namespace+"/"+b.Pod+"/"+b.ID)
	})
	return out
}

// newer prefers who is connected, then who connected last.
func newer(a, b admin.ProxyStatus) bool {
	if (a.Lost == nil) != (b.Lost == nil) {
		return a.Lost == nil
	}
	return a.Connected.After(b.Connected)
}
