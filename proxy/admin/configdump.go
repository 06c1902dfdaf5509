package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/xds"
)

// section is one message of a config dump and the field that lists the resources of a type.
type section struct {
	typeURL  string
	message  string // of envoy.admin.v3
	field    string // "dynamic_active_clusters"
	resource string // "cluster"
	eds      bool   // only with ?include_eds
	empty    string // further fields of the message, for masks; they are never filled here
}

var sections = []section{
	{xds.ClusterType, "ClustersConfigDump", "dynamic_active_clusters", "cluster", false, "version_info static_clusters dynamic_warming_clusters"},
	{xds.EndpointType, "EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config", true, "static_endpoint_configs"},
	{xds.ListenerType, "ListenersConfigDump", "dynamic_listeners", "listener", false, "version_info static_listeners"},
	{xds.RouteType, "RoutesConfigDump", "dynamic_route_configs", "route_config", false, "static_route_configs"},
	{xds.SecretType, "SecretsConfigDump", "dynamic_active_secrets", "secret", false, "static_secrets dynamic_warming_secrets"},
	{extensionType, "EcdsConfigDump", "ecds_filters", "ecds_filter", false, ""},
}

// extensionType is of discovered extensions. The proxy has none, and says so to who asks.
const extensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

const adminTypes = "type.googleapis.com/envoy.admin.v3."

// configDump prints Envoy's /config_dump from the resources as they were accepted.
func (s *Server) configDump(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	match := func(string) bool { return true }
	if p := q.Get("name_regex"); p != "" {
		re, err := regexp.Compile(`\A(?:` + p + `)\z`)
		if err != nil {
			http.Error(w, "name_regex: "+err.Error(), http.StatusBadRequest)
			return
		}
		match = re.MatchString
	}
	only := q.Get("resource")
	mask, err := parseMask(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	configs := []any{}
	if only == "" && mask.wants("bootstrap last_updated") {
		m, err := s.bootstrap()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		configs = append(configs, mask.trim(m))
	}
	found := only == ""
	for _, x := range sections {
		if only != "" && only != x.field {
			continue
		}
		if only == "" && (x.eds && !q.Has("include_eds") || !mask.wants(x.field+" "+x.empty)) {
			continue
		}
		found = true
		list, err := s.entries(x, match)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if only != "" {
			configs = append(configs, list...)
			continue
		}
		m := map[string]any{"@type": adminTypes + x.message}
		if len(list) > 0 {
			m[x.field] = list
		}
		configs = append(configs, mask.trim(m))
	}
	if !found {
		http.Error(w, fmt.Sprintf("%s not found in config dump", only), http.StatusNotFound)
		return
	}
	writeJSON(w, map[string]any{"configs": configs})
}

func (s *Server) entries(x section, match func(string) bool) ([]any, error) {
	errs := map[string]Refused{}
	for _, e := range s.set.Refused(x.typeURL) {
		errs[e.Name] = e
	}
	var list []any
	for _, r := range s.set.Resources(x.typeURL) {
		if !match(r.Name) {
			continue
		}
		body, err := resourceJSON(r.Resource)
		if err != nil {
			return nil, err
		}
		state := map[string]any{"version_info": r.Version, x.resource: body, "last_updated": stamp(r.At)}
		e, refused := errs[r.Name]
		delete(errs, r.Name)
		switch x.typeURL {
		case xds.ListenerType:
			entry := map[string]any{"name": r.Name, "active_state": state}
			if refused {
				entry["error_state"] = errorState(e)
			}
			list = append(list, entry)
			continue
		case xds.SecretType:
			state["name"] = r.Name
		}
		if refused {
			state["error_state"], state["client_status"] = errorState(e), "NACKED"
		}
		list = append(list, state)
	}
	for name, e := range errs { // refused and without a version that serves
		if x.typeURL == xds.ListenerType && match(name) {
			list = append(list, map[string]any{"name": name, "error_state": errorState(e)})
		}
	}
	if x.typeURL == xds.SecretType {
		list = append(list, s.ownSecrets()...)
	}
	return list, nil
}

func errorState(e Refused) map[string]any {
	return map[string]any{"details": e.Reason, "last_update_attempt": stamp(e.At)}
}

// resourceJSON is a resource with its @type, without private keys.
func resourceJSON(r *xds.Resource) (any, error) {
	j, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&anypb.Any{TypeUrl: r.TypeURL, Value: r.Body})
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", xds.ShortName(r.TypeURL), r.Name, err)
	}
	var v any
	if err := json.Unmarshal(j, &v); err != nil {
		return nil, err
	}
	redact(v)
	return v, nil
}

// secretFields hold key material wherever they occur in Envoy's TLS messages.
var secretFields = map[string]bool{
	"private_key": true, "private_key_provider": true, "password": true, "pkcs12": true, "session_ticket_keys": true, "generic_secret": true,
}

// redact replaces key material, at any depth.
func redact(v any) {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if secretFields[k] {
				if m, ok := e.(map[string]any); !ok || m["filename"] == nil {
					x[k] = map[string]any{"inline_bytes": redacted}
				}
				continue
			}
			redact(e)
		}
	case []any:
		for _, e := range x {
			redact(e)
		}
	}
}
