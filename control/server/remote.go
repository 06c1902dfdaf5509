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

// syncState is one proxy in /debug/syncz, with the names that istioctl and Kiali read.
type syncState struct {
	Cluster      string `json:"cluster_id,omitempty"`
	Proxy        string `json:"proxy"`
	Type         string `json:"proxy_type,omitempty"`
	Version      string `json:"istio_version,omitempty"`
	ClusterSent  string `json:"cluster_sent,omitempty"`
	ClusterAck   string `json:"cluster_acked,omitempty"`
	ListenerSent string `json:"listener_sent,omitempty"`
	ListenerAck  string `json:"listener_acked,omitempty"`
	RouteSent    string `json:"route_sent,omitempty"`
	RouteAck     string `json:"route_acked,omitempty"`
	EndpointSent string `json:"endpoint_sent,omitempty"`
	EndpointAck  string `json:"endpoint_acked,omitempty"`
}

// syncz lists connected proxies. What was sent is the version that is
// acknowledged where nothing is under way, and the World's elsewhere.
func (s *Server) syncz(w http.ResponseWriter, _ *http.Request) {
	world := s.world().Version()
	out := []syncState{}
	for _, p := range s.tracker.Proxies() {
		if p.Lost != nil {
			continue
		}
		pair := func(typ string) (sent, acked string) {
			t := p.Types[typ]
			if t.State == "" || t.State == admin.SyncNotSent {
				return "", ""
			}
			if t.State == admin.SyncSynced {
				return t.Version, t.Version
			}
			return world, t.Version
		}
		st := syncState{Cluster: "Kubernetes", Proxy: p.Pod + "." + p.Namespace, Type: p.Type, Version: p.Version}
		st.ClusterSent, st.ClusterAck = pair("CDS")
		st.ListenerSent, st.ListenerAck = pair("LDS")
		st.RouteSent, st.RouteAck = pair("RDS")
		st.EndpointSent, st.EndpointAck = pair("EDS")
		out = append(out, st)
	}
	writeJSON(w, http.StatusOK, out)
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
