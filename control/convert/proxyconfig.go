package convert

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	mesh "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/model"
)

// annotationProxyConfig on a pod holds the part of Istio's ProxyConfig that differs for its proxy, as YAML or JSON.
const annotationProxyConfig = "proxy.istio.io/config"

// maxProxyConfig bounds that annotation.
const maxProxyConfig = 64 << 10

// proxyConfigFields are the fields of ProxyConfig, and of messages in it, that are honoured.
var proxyConfigFields = map[protoreflect.FullName]string{
	"istio.mesh.v1alpha1.ProxyConfig":                         "gatewayTopology",
	"istio.mesh.v1alpha1.Topology":                            "numTrustedProxies forwardClientCertDetails proxyProtocol",
	"istio.mesh.v1alpha1.Topology.ProxyProtocolConfiguration": "",
}

// podTopology reads the annotation of a pod that runs. Only gatewayTopology is the control plane's: the other fields were
// checked when the pod was made, by injection or the local runtime, and are the proxy's.
func podTopology(text string) (model.Topology, error) {
	b, err := proxyConfigYAML(text)
	if err != nil {
		return model.Topology{}, err
	}
	var fields struct {
		GatewayTopology json.RawMessage `json:"gatewayTopology"`
	}
	if err := json.Unmarshal(b, &fields); err != nil {
		return model.Topology{}, fmt.Errorf("no ProxyConfig: %w", err)
	}
	if len(fields.GatewayTopology) == 0 {
		return model.Topology{}, nil
	}
	return parseProxyConfig(`{"gatewayTopology":` + string(fields.GatewayTopology) + `}`)
}

// proxyConfigYAML is the annotation as JSON.
func proxyConfigYAML(text string) ([]byte, error) {
	if len(text) > maxProxyConfig {
		return nil, fmt.Errorf("%d bytes: at most %d", len(text), maxProxyConfig)
	}
	b, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("no YAML: %w", err)
	}
	return b, nil
}

// parseProxyConfig reads the annotation. What is not honoured is an error that names it.
func parseProxyConfig(text string) (model.Topology, error) {
	var out model.Topology
	b, err := proxyConfigYAML(text)
	if err != nil {
		return out, err
	}
	var pc mesh.ProxyConfig
	if err := protojson.Unmarshal(b, &pc); err != nil {
		return out, fmt.Errorf("no ProxyConfig: %s", strings.TrimPrefix(err.Error(), "proto: "))
	}
	if name := unsupportedField("", pc.ProtoReflect()); name != "" {
		return out, fmt.Errorf("%s: not implemented yet; remove it", name)
	}
	t := pc.GetGatewayTopology()
	out.TrustedProxies, out.ProxyProtocol = t.GetNumTrustedProxies(), t.GetProxyProtocol() != nil
	if d := t.GetForwardClientCertDetails(); d != mesh.ForwardClientCertDetails_UNDEFINED {
		out.ForwardClientCert = d.String()
	}
	return out, nil
}

// unsupportedField is the path of the first set field that is not honoured, "" if there is none.
func unsupportedField(path string, m protoreflect.Message) (found string) {
	allowed := strings.Fields(proxyConfigFields[m.Descriptor().FullName()])
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := strings.TrimPrefix(path+"."+f.JSONName(), ".")
		ok := false
		for _, a := range allowed {
			ok = ok || a == f.JSONName()
		}
		switch {
		case !ok && (found == "" || name < found): // Range is in no order; the message must be stable
			found = name
		case ok && f.Message() != nil && !f.IsList() && !f.IsMap():
			if s := unsupportedField(name, v.Message()); s != "" && (found == "" || s < found) {
				found = s
			}
		}
		return true
	})
	return found
}
