package inject

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	mesh "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

// maxProxyConfig bounds the annotation in bytes.
const maxProxyConfig = 64 << 10

// Fields of ProxyConfig by what becomes of them.
var (
	// forProxy are read by weft-proxy from PROXY_CONFIG.
	forProxy = []string{"discoveryAddress", "concurrency", "proxyAdminPort", "statusPort", "drainDuration", "terminationDrainDuration", "meshId", "proxyMetadata"}
	// forOthers are honoured by injection itself, or by the control plane, which reads the annotation (gatewayTopology).
	forOthers = []string{"holdApplicationUntilProxyStarts", "interceptionMode", "image", "gatewayTopology"}
	// withoutMeaning are always in Istio's default configuration and mean nothing to weft-proxy.
	withoutMeaning = []string{"configPath", "binaryPath", "serviceCluster", "controlPlaneAuthPolicy", "statNameLength"}
	// reported have no effect, and neither traffic nor policy depend on them.
	reported = []string{"availabilityZone", "discoveryRefreshDelay", "envoyAccessLogService", "envoyMetricsService", "envoyMetricsServiceAddress",
		"extraStatTags", "fileFlushInterval", "fileFlushMinSizeKb", "proxyStatsMatcher", "runtimeValues", "statsCompression", "statsdUdpAddress",
		"tracing", "tracingServiceName", "zipkinAddress"}
)

// parseProxyConfig reads the annotation proxy.istio.io/config.
func parseProxyConfig(text string) (*mesh.ProxyConfig, []string, error) {
	pc := &mesh.ProxyConfig{}
	if len(text) > maxProxyConfig {
		return nil, nil, fmt.Errorf("%d bytes: at most %d", len(text), maxProxyConfig)
	}
	b, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, nil, fmt.Errorf("no YAML: %w", err)
	}
	if string(b) != "null" {
		if err := protojson.Unmarshal(b, pc); err != nil {
			return nil, nil, fmt.Errorf("no ProxyConfig: %s", strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "proto:"), "\u00a0", " ")))
		}
	}
	warnings, err := checkProxyConfig(pc)
	return pc, warnings, err
}

// checkProxyConfig refuses what is not honoured and reports what is merely left out.
func checkProxyConfig(pc *mesh.ProxyConfig) (warnings []string, err error) {
	var refused []string
	pc.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		name := f.JSONName()
		switch {
		case slices.Contains(forProxy, name), slices.Contains(forOthers, name), slices.Contains(withoutMeaning, name):
		case slices.Contains(reported, name):
			warnings = append(warnings, "annotation "+annProxyConfig+": "+name+" has no effect")
		default:
			refused = append(refused, name)
		}
		return true
	})
	slices.Sort(warnings)
	slices.Sort(refused) // Range is in no order
	switch {
	case len(refused) > 0:
		return nil, fmt.Errorf("%s: not supported; remove it", refused[0])
	case pc.GetInterceptionMode() != mesh.ProxyConfig_REDIRECT:
		return nil, fmt.Errorf("interceptionMode %s: only REDIRECT is supported", pc.GetInterceptionMode())
	}
	if err := checkNames(pc.GetProxyMetadata()); err != nil {
		return nil, fmt.Errorf("proxyMetadata.%w", err)
	}
	if err := isImageType(pc.GetImage().GetImageType()); err != nil {
		return nil, fmt.Errorf("image.imageType %q: %w", pc.GetImage().GetImageType(), err)
	}
	return warnings, nil
}

// Variables by which the proxy answers the pod's DNS queries.
const (
	variableNames    = "ISTIO_META_DNS_CAPTURE"
	variableAllocate = "ISTIO_META_DNS_AUTO_ALLOCATE"
)

// checkNames refuses what weft-proxy would not start with. How addresses are allocated matters only where it answers.
func checkNames(metadata map[string]string) error {
	switch v := metadata[variableNames]; v {
	case "", "false":
		return nil
	case "true":
	default:
		return fmt.Errorf("%s %q: want true or false", variableNames, v)
	}
	if v := metadata[variableAllocate]; v != "" && v != "true" {
		return fmt.Errorf("%s %q: want true, or remove it; the label networking.istio.io/enable-autoallocate-ip: \"false\" keeps a ServiceEntry without an address", variableAllocate, v)
	}
	return nil
}

// answersNames tells whether the proxy answers the pod's DNS queries.
func (r *request) answersNames() bool { return r.proxy.GetProxyMetadata()[variableNames] == "true" }

// mergeProxyConfig is base with the fields of over in their place; proxyMetadata is merged by key, as in Istio.
func mergeProxyConfig(base, over *mesh.ProxyConfig) *mesh.ProxyConfig {
	out := &mesh.ProxyConfig{}
	if base != nil {
		out = proto.CloneOf(base)
	}
	m := out.ProtoReflect()
	over.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.JSONName() != "proxyMetadata" {
			m.Set(f, v)
		}
		return true
	})
	for k, v := range over.GetProxyMetadata() {
		if out.ProxyMetadata == nil {
			out.ProxyMetadata = map[string]string{}
		}
		out.ProxyMetadata[k] = v
	}
	return out
}

// proxyConfigJSON is PROXY_CONFIG: the fields that weft-proxy reads, always in the same bytes.
func proxyConfigJSON(pc *mesh.ProxyConfig) (string, error) {
	only := &mesh.ProxyConfig{}
	pc.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if slices.Contains(forProxy, f.JSONName()) {
			only.ProtoReflect().Set(f, v)
		}
		return true
	})
	b, err := protojson.Marshal(only)
	if err != nil {
		return "", err
	}
	var m map[string]any // protojson's spaces are random on purpose
	if err := json.Unmarshal(b, &m); err != nil {
		return "", err
	}
	b, err = json.Marshal(m)
	return string(b), err
}
