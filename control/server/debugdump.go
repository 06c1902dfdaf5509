package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// errNotConnected answers a dump of a proxy that this replica does not serve; another may.
type errNotConnected struct {
	proxy string
	known []string
}

func (e *errNotConnected) Error() string {
	return fmt.Sprintf("proxyID %q: no such proxy is connected here", e.proxy)
}

// resources is what a connected proxy gets of each type, and their version.
func (s *Server) resources(proxyID string, types ...string) (out [][]*xds.Resource, version string, err error) {
	n := s.nodes.find(proxyID)
	if n == nil {
		return nil, "", &errNotConnected{proxyID, s.nodes.names()}
	}
	snap := s.current()
	if snap == nil {
		return nil, "", fmt.Errorf("no World is served yet: wait for /ready")
	}
	for _, t := range types {
		rs, err := snap.Resources(n, t, nil)
		if err != nil {
			return nil, "", err
		}
		out = append(out, rs)
	}
	return out, snap.Version(), nil
}

// dump is what a connected proxy gets, as Envoy's admin interface would show it: a message for each type. Private keys are not in it.
func (s *Server) dump(proxyID string, types ...string) ([]*anypb.Any, error) {
	all, version, err := s.resources(proxyID, types...)
	if err != nil {
		return nil, err
	}
	var out []*anypb.Any
	for i, t := range types {
		m, err := section(t, version, all[i])
		if err != nil {
			return nil, err
		}
		a, err := anypb.New(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", xds.ShortName(t), err)
		}
		out = append(out, a)
	}
	return out, nil
}

// section is the message of a dump for the resources of one type.
func section(typeURL, version string, rs []*xds.Resource) (proto.Message, error) {
	var (
		clusters  adminv3.ClustersConfigDump
		endpoints adminv3.EndpointsConfigDump
		listeners adminv3.ListenersConfigDump
		routes    adminv3.RoutesConfigDump
		secrets   adminv3.SecretsConfigDump
	)
	for _, r := range rs {
		a := &anypb.Any{TypeUrl: r.TypeURL, Value: r.Body}
		switch typeURL {
		case xds.ClusterType:
			clusters.DynamicActiveClusters = append(clusters.DynamicActiveClusters, &adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: version, Cluster: a})
		case xds.EndpointType:
			endpoints.DynamicEndpointConfigs = append(endpoints.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{VersionInfo: version, EndpointConfig: a})
		case xds.ListenerType:
			listeners.DynamicListeners = append(listeners.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{Name: r.Name,
				ActiveState: &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: version, Listener: a}})
		case xds.RouteType:
			routes.DynamicRouteConfigs = append(routes.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{VersionInfo: version, RouteConfig: a})
		case xds.SecretType:
			a, err := withoutKey(r)
			if err != nil {
				return nil, err
			}
			secrets.DynamicActiveSecrets = append(secrets.DynamicActiveSecrets, &adminv3.SecretsConfigDump_DynamicSecret{Name: r.Name, VersionInfo: version, Secret: a})
		}
	}
	switch typeURL {
	case xds.ClusterType:
		clusters.VersionInfo = version
		return &clusters, nil
	case xds.EndpointType:
		return &endpoints, nil
	case xds.ListenerType:
		listeners.VersionInfo = version
		return &listeners, nil
	case xds.RouteType:
		return &routes, nil
	case xds.SecretType:
		return &secrets, nil
	}
	return nil, fmt.Errorf("type %q has no place in a dump", typeURL)
}

// withoutKey keeps of a secret what is public: certificates. A secret that cannot be read is not shown at all.
func withoutKey(r *xds.Resource) (*anypb.Any, error) {
	var all tlsv3.Secret
	if err := proto.Unmarshal(r.Body, &all); err != nil {
		return nil, fmt.Errorf("secret %q: %w", r.Name, err)
	}
	shown := &tlsv3.Secret{Name: all.GetName()}
	switch t := all.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		shown.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: t.TlsCertificate.GetCertificateChain()}}
	case *tlsv3.Secret_ValidationContext:
		shown.Type = t
	}
	return anypb.New(shown)
}

// configDump shows what a connected proxy gets, in the form of Envoy's admin interface.
func (s *Server) configDump(w http.ResponseWriter, r *http.Request) {
	s.writeDump(w, r, xds.PushOrder...)
}

func (s *Server) edsz(w http.ResponseWriter, r *http.Request) { s.writeDump(w, r, xds.EndpointType) }

// ndsz is the name table that a proxy gets if it asks for one. Istio's message has no Go type, so its JSON is written here.
func (s *Server) ndsz(w http.ResponseWriter, r *http.Request) {
	id, ok := wantedProxy(w, r)
	if !ok {
		return
	}
	tables, err := s.nameTables(id)
	if err != nil {
		writeDumpError(w, err)
		return
	}
	configs := []map[string]any{}
	for _, t := range tables {
		configs = append(configs, map[string]any{"@type": xds.NameTableType, "table": t})
	}
	writeJSON(w, http.StatusOK, map[string]any{"configs": configs})
}

// nameTables is the name table of a connected proxy: one, or none for a client that takes none.
func (s *Server) nameTables(proxyID string) ([]map[string]nds.Info, error) {
	rs, _, err := s.resources(proxyID, xds.NameTableType)
	if err != nil {
		return nil, err
	}
	var out []map[string]nds.Info
	for _, r := range rs[0] {
		t, err := nds.Decode(r.Body)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// wantedProxy is the proxy that a request names; without one it is answered with the words that istioctl looks for.
func wantedProxy(w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	id = r.URL.Query().Get("proxyID")
	if id == "" {
		http.Error(w, "You must provide a proxyID in the query string: ?proxyID=<pod>.<namespace>", http.StatusBadRequest)
	}
	return id, id != ""
}

func writeDumpError(w http.ResponseWriter, err error) {
	if nc, ok := err.(*errNotConnected); ok {
		writeError(w, http.StatusNotFound, nc.Error(), "one of: "+strings.Join(nc.known, ", "))
		return
	}
	writeError(w, http.StatusInternalServerError, err.Error(), "")
}

func (s *Server) writeDump(w http.ResponseWriter, r *http.Request, types ...string) {
	id, ok := wantedProxy(w, r)
	if !ok {
		return
	}
	configs, err := s.dump(id, types...)
	if err != nil {
		writeDumpError(w, err)
		return
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&adminv3.ConfigDump{Configs: configs})
	if err != nil {
		writeError(w, http.StatusInternalServerError, "config dump: "+err.Error(), "")
		return
	}
	writeJSON(w, http.StatusOK, json.RawMessage(b))
}
