package server

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

// node is how we introduce ourselves to the control plane: Istio's ID and metadata keys.
func (s *Settings) node() *corev3.Node {
	labels := map[string]*structpb.Value{}
	for k, v := range s.Labels {
		labels[k] = structpb.NewStringValue(v)
	}
	f := map[string]*structpb.Value{}
	for k, v := range s.Metadata {
		f[k] = structpb.NewStringValue(v)
	}
	for k, v := range map[string]string{
		"NAME": s.Name, "NAMESPACE": s.Namespace, "SERVICE_ACCOUNT": s.ServiceAccount, "WORKLOAD_NAME": s.Workload, "CLUSTER_ID": s.Cluster,
	} {
		f[k] = structpb.NewStringValue(v)
	}
	f["LABELS"] = structpb.NewStructValue(&structpb.Struct{Fields: labels})
	if f["INSTANCE_IPS"] == nil {
		f["INSTANCE_IPS"] = structpb.NewStringValue(s.IP.String())
	}
	if s.Role == xds.Sidecar {
		f["INTERCEPTION_MODE"] = structpb.NewStringValue("REDIRECT")
	}
	if s.DNSCapture {
		f["DNS_CAPTURE"] = structpb.NewStringValue("true")
	}
	cluster := s.Labels["app"]
	if cluster == "" {
		cluster = s.Workload
	}
	return &corev3.Node{
		Id: s.nodeID(), Cluster: cluster + "." + s.Namespace, Metadata: &structpb.Struct{Fields: f},
		UserAgentName:        xds.UserAgent,
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: version.Get().Version},
		ClientFeatures:       []string{patch.Feature},
	}
}
