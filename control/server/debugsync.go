package server

import (
	"net/http"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/xds"
)

// syncState is one proxy in /debug/syncz, with the names that istioctl and Kiali read.
type syncState struct {
	Cluster      string                 `json:"cluster_id,omitempty"`
	Proxy        string                 `json:"proxy"`
	Type         string                 `json:"proxy_type,omitempty"`
	Version      string                 `json:"istio_version,omitempty"`
	ClusterSent  string                 `json:"cluster_sent,omitempty"`
	ClusterAck   string                 `json:"cluster_acked,omitempty"`
	ListenerSent string                 `json:"listener_sent,omitempty"`
	ListenerAck  string                 `json:"listener_acked,omitempty"`
	RouteSent    string                 `json:"route_sent,omitempty"`
	RouteAck     string                 `json:"route_acked,omitempty"`
	EndpointSent string                 `json:"endpoint_sent,omitempty"`
	EndpointAck  string                 `json:"endpoint_acked,omitempty"`
	Resources    map[string]syncedState `json:"resources,omitempty"` // by type URL
}

type syncedState struct {
	Sent      string    `json:"sent,omitempty"`
	Acked     string    `json:"acked,omitempty"`
	SentTime  time.Time `json:"sentTime,omitzero"` // of the last answer
	LastError string    `json:"lastError,omitempty"`
}

// connected lists connected proxies, of one namespace unless it is "".
func (s *Server) connected(namespace string) []admin.ProxyStatus {
	var out []admin.ProxyStatus
	for _, p := range s.tracker.Proxies() {
		if p.Lost == nil && (namespace == "" || p.Namespace == namespace) {
			out = append(out, p)
		}
	}
	return out
}

// syncz lists connected proxies. What was sent is the version that is
// acknowledged where nothing is under way, and the World's elsewhere.
func (s *Server) syncz(w http.ResponseWriter, r *http.Request) {
	world := s.world().Version()
	out := []syncState{}
	for _, p := range s.connected(r.URL.Query().Get("namespace")) {
		st := syncState{Cluster: s.set.Mesh.ClusterID, Proxy: p.Pod + "." + p.Namespace, Type: p.Type, Version: p.Version, Resources: map[string]syncedState{}}
		pair := func(typeURL string) (sent, acked string) {
			t := p.Types[xds.ShortName(typeURL)]
			if t.State == "" || t.State == admin.SyncNotSent {
				return "", ""
			}
			sent, acked = t.Version, t.Version
			if t.State != admin.SyncSynced {
				sent = world
			}
			st.Resources[typeURL] = syncedState{sent, acked, answered(t), refusal(t)}
			return sent, acked
		}
		st.ClusterSent, st.ClusterAck = pair(xds.ClusterType)
		st.ListenerSent, st.ListenerAck = pair(xds.ListenerType)
		st.RouteSent, st.RouteAck = pair(xds.RouteType)
		st.EndpointSent, st.EndpointAck = pair(xds.EndpointType)
		pair(xds.SecretType)
		pair(xds.NameTableType)
		out = append(out, st)
	}
	writeJSON(w, http.StatusOK, out)
}

// answered is when the proxy last accepted or refused a type.
func answered(t admin.TypeStatus) time.Time {
	if t.LastNack != nil && t.LastNack.Time.After(t.LastAck) {
		return t.LastNack.Time
	}
	return t.LastAck
}

// refusal is why the proxy goes on with an older version; "": it does not.
func refusal(t admin.TypeStatus) string {
	if t.State == admin.SyncRefused && t.LastNack != nil {
		return t.LastNack.Reason
	}
	return ""
}

// clientConfigs is syncz as envoy.service.status.v3.ClientConfig, which istioctl proxy-status asks for.
func (s *Server) clientConfigs(namespace string) ([]*anypb.Any, error) {
	var out []*anypb.Any
	for _, p := range s.connected(namespace) {
		meta, err := structpb.NewStruct(map[string]any{"CLUSTER_ID": s.set.Mesh.ClusterID, "NAMESPACE": p.Namespace, "ISTIO_VERSION": p.Version})
		if err != nil {
			return nil, err
		}
		c := &statusv3.ClientConfig{Node: &corev3.Node{Id: p.Pod + "." + p.Namespace, Metadata: meta}}
		for _, t := range xds.PushOrder {
			c.GenericXdsConfigs = append(c.GenericXdsConfigs, genericConfig(t, p.Types[xds.ShortName(t)]))
		}
		a, err := anypb.New(c)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// genericConfig is the state of one type. A type that the proxy never asked for is UNKNOWN, which istioctl calls IGNORED.
func genericConfig(typeURL string, t admin.TypeStatus) *statusv3.ClientConfig_GenericXdsConfig {
	g := &statusv3.ClientConfig_GenericXdsConfig{TypeUrl: typeURL, VersionInfo: t.Version}
	switch t.State {
	case admin.SyncSynced:
		g.ConfigStatus = statusv3.ConfigStatus_SYNCED
	case admin.SyncStale:
		g.ConfigStatus = statusv3.ConfigStatus_STALE
	case admin.SyncNotSent:
		g.ConfigStatus = statusv3.ConfigStatus_NOT_SENT
	case admin.SyncRefused:
		g.ConfigStatus = statusv3.ConfigStatus_ERROR
		g.ErrorState = &adminv3.UpdateFailureState{Details: refusal(t), LastUpdateAttempt: timestamppb.New(answered(t))}
	}
	if at := answered(t); !at.IsZero() {
		g.LastUpdated = timestamppb.New(at)
	}
	return g
}
