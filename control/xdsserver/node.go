package xdsserver

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

// nodeOf reads what a client says of itself: the ID in Istio's form and the
// metadata keys that Istio's agent sends.
func nodeOf(n *core.Node) (*xds.Node, error) {
	if n == nil || n.GetId() == "" {
		return nil, fmt.Errorf("xds: the first request has no node id")
	}
	node, err := xds.ParseNodeID(n.GetId())
	if err != nil {
		return nil, err
	}
	node.Cluster = n.GetCluster()
	if l := n.GetLocality(); l != nil {
		node.Locality = strings.TrimRight(strings.Join([]string{l.GetRegion(), l.GetZone(), l.GetSubZone()}, "/"), "/")
	}
	node.WeftProxy = n.GetUserAgentName() == xds.UserAgent
	node.Version = n.GetUserAgentVersion()
	node.Patches = slices.Contains(n.GetClientFeatures(), patch.Feature)
	f := n.GetMetadata().GetFields()
	m := &node.Metadata
	m.Namespace = str(f, "NAMESPACE")
	m.ServiceAccount = str(f, "SERVICE_ACCOUNT")
	m.WorkloadName = str(f, "WORKLOAD_NAME")
	m.ClusterID = str(f, "CLUSTER_ID")
	m.MeshID = str(f, "MESH_ID")
	m.Network = str(f, "NETWORK")
	m.InterceptionMode = str(f, "INTERCEPTION_MODE")
	m.DNSCapture, _ = strconv.ParseBool(str(f, "DNS_CAPTURE"))
	node.Generator = str(f, "GENERATOR")
	m.Labels = map[string]string{}
	for k, v := range f["LABELS"].GetStructValue().GetFields() {
		m.Labels[k] = v.GetStringValue()
	}
	m.Raw = map[string]string{}
	for k, v := range f {
		if s, ok := v.GetKind().(*structpb.Value_StringValue); ok {
			m.Raw[k] = s.StringValue
		}
	}
	return node, nil
}

func str(f map[string]*structpb.Value, key string) string { return f[key].GetStringValue() }

// CheckIdentity holds a node to the identity that its stream proved: namespace
// and service account must be the certificate's (Istio: PILOT_ENABLE_XDS_IDENTITY_CHECK).
func CheckIdentity(id spiffe.ID, n *xds.Node) error {
	ns, sa, ok := id.Workload()
	if !ok {
		return fmt.Errorf("identity %q names no workload", id)
	}
	if n.Namespace != ns {
		return fmt.Errorf("namespace %q, but the certificate is of namespace %q", n.Namespace, ns)
	}
	if m := n.Metadata.Namespace; m != "" && m != ns {
		return fmt.Errorf("metadata NAMESPACE %q, but the certificate is of namespace %q", m, ns)
	}
	if m := n.Metadata.ServiceAccount; m != sa {
		return fmt.Errorf("metadata SERVICE_ACCOUNT %q, but the certificate is of service account %q", m, sa)
	}
	return nil
}
