package admin

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"

	"weft.mesh/weft/xds"
)

// bootstrap is what an Envoy would have started with to do what this proxy does: who it is, where its
// configuration comes from, and where its admin interface is. The proxy has no bootstrap file.
func (s *Server) bootstrap() (map[string]any, error) {
	i := s.set.Info()
	node := map[string]any{"id": i.NodeID, "cluster": i.Cluster, "user_agent_name": xds.UserAgent}
	if i.Node != nil {
		j, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(i.Node)
		if err != nil {
			return nil, fmt.Errorf("bootstrap: node: %w", err)
		}
		node = map[string]any{}
		if err := json.Unmarshal(j, &node); err != nil {
			return nil, fmt.Errorf("bootstrap: node: %w", err)
		}
	}
	if v := buildVersion(i.Version); v != nil { // istioctl shows it as the proxy's version
		delete(node, "user_agent_version") // of a oneof
		node["user_agent_build_version"] = map[string]any{"version": v, "metadata": map[string]string{"build.label": xds.UserAgent}}
	}
	b := map[string]any{"node": node}
	if i.ControlPlane != "" {
		b["dynamic_resources"] = map[string]any{"ads_config": map[string]any{"api_type": "DELTA_GRPC", "transport_api_version": "V3",
			"grpc_services": []any{map[string]any{"google_grpc": map[string]string{"target_uri": i.ControlPlane, "stat_prefix": "xds"}}}}}
	}
	if host, port, err := net.SplitHostPort(s.set.Admin); err == nil {
		n, _ := strconv.ParseUint(port, 10, 16) // New listens there
		b["admin"] = map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": host, "port_value": n}}}
	}
	return map[string]any{"@type": adminTypes + "BootstrapConfigDump", "bootstrap": b, "last_updated": stamp(i.Started)}, nil
}

var release = regexp.MustCompile(`^v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})`)

// buildVersion is Envoy's SemanticVersion; nil for a version that is none.
func buildVersion(version string) map[string]any {
	m := release.FindStringSubmatch(version)
	if m == nil {
		return nil
	}
	v := map[string]any{}
	for i, f := range []string{"major_number", "minor_number", "patch"} {
		v[f], _ = strconv.Atoi(m[i+1]) // six digits
	}
	return v
}
