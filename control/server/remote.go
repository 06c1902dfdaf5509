package server

import (
	"encoding/json"
	"net/http"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

// remote adds to the pages of 15014 what the command asks a control plane on a
// cluster for. It only reads, and Secrets are without their values: who may
// forward a port to this pod may not for that reason read keys.
func (s *Server) remote(debug func(pattern string, h http.HandlerFunc)) {
	debug(admin.PathStatus, s.getStatus)
	debug(admin.PathObjects, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("watch") == "true" {
			writeError(w, http.StatusNotImplemented, "watching works over the control socket only", "ask again from time to time")
			return
		}
		if s.config.wait(r.Context()) != nil {
			return // the caller went away before everything was read
		}
		writeJSON(w, http.StatusOK, s.objects(q.Get("kind"), q.Get("namespace"), q.Get("name")))
	})
}

// objects are configuration objects as they may be shown.
func (s *Server) objects(kind, ns, name string) admin.ObjectList {
	list := s.config.list(kind, ns, name)
	for i := range list.Items {
		if list.Items[i].Kind == string(model.KindSecret) {
			list.Items[i].Raw = withoutValues(list.Items[i].Raw)
		}
	}
	return list
}

// withoutValues keeps the keys of a Secret. What cannot be read is left out whole.
func withoutValues(raw json.RawMessage) json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil {
		return json.RawMessage("{}")
	}
	for _, field := range []string{"data", "stringData"} {
		var m map[string]any
		if o[field] == nil || json.Unmarshal(o[field], &m) != nil {
			delete(o, field)
			continue
		}
		for k := range m {
			m[k] = "" // base64 of nothing
		}
		o[field], _ = json.Marshal(m) // strings only
	}
	// Who applied it with kubectl left the values there too.
	var meta map[string]any
	if json.Unmarshal(o["metadata"], &meta) == nil {
		delete(meta, "managedFields")
		if a, ok := meta["annotations"].(map[string]any); ok {
			delete(a, "kubectl.kubernetes.io/last-applied-configuration")
		}
		o["metadata"], _ = json.Marshal(meta)
	}
	b, err := json.Marshal(o)
	if err != nil {
		return json.RawMessage("{}")
	}
	return b
}
