package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Annotations of pods that injection reads.
const (
	annTemplates         = "inject.istio.io/templates"
	annRevision          = "istio.io/rev"
	annStatus            = "sidecar.istio.io/status"
	annProxyConfig       = "proxy.istio.io/config"
	annMerge             = "prometheus.istio.io/merge-metrics"
	annLogLevel          = "sidecar.istio.io/logLevel"
	annNative            = "sidecar.istio.io/nativeSidecar"
	annCPU               = "sidecar.istio.io/proxyCPU"
	annCPULimit          = "sidecar.istio.io/proxyCPULimit"
	annMemory            = "sidecar.istio.io/proxyMemory"
	annMemoryLimit       = "sidecar.istio.io/proxyMemoryLimit"
	annImage             = "sidecar.istio.io/proxyImage"
	annImageType         = "sidecar.istio.io/proxyImageType"
	annRewrite           = "sidecar.istio.io/rewriteAppHTTPProbers"
	annInterception      = "sidecar.istio.io/interceptionMode"
	annVolume            = "sidecar.istio.io/userVolume"
	annVolumeMount       = "sidecar.istio.io/userVolumeMount"
	annStatusPort        = "status.sidecar.istio.io/port"
	annReadyDelay        = "readiness.status.sidecar.istio.io/initialDelaySeconds"
	annReadyPeriod       = "readiness.status.sidecar.istio.io/periodSeconds"
	annReadyFailures     = "readiness.status.sidecar.istio.io/failureThreshold"
	annIncludeRanges     = "traffic.sidecar.istio.io/includeOutboundIPRanges"
	annExcludeRanges     = "traffic.sidecar.istio.io/excludeOutboundIPRanges"
	annIncludeOutbound   = "traffic.sidecar.istio.io/includeOutboundPorts"
	annExcludeOutbound   = "traffic.sidecar.istio.io/excludeOutboundPorts"
	annIncludeInbound    = "traffic.sidecar.istio.io/includeInboundPorts"
	annExcludeInbound    = "traffic.sidecar.istio.io/excludeInboundPorts"
	annExcludeInterfaces = "traffic.sidecar.istio.io/excludeInterfaces"
)

// Support is how Weft treats an annotation.
type Support int

// Ways to treat an annotation.
const (
	Honoured Support = iota // it does what it does in Istio
	Reported                // it has no effect, which a warning says: neither traffic nor policy depend on it
	Refused                 // the pod is refused: it would not do what its author wants
)

// Annotation is one annotation of Istio's that pods may have.
type Annotation struct {
	Name    string
	Support Support
	Why     string // why it is not honoured
	check   func(string) error
}

// Annotations are all that injection knows, sorted by name. docs/kubernetes/annotations.md lists them; a test compares.
var Annotations = []Annotation{
	{"ambient.istio.io/bypass-inbound-capture", Reported, "there is no ambient mode", nil},
	{"ambient.istio.io/dns-capture", Reported, "there is no ambient mode", nil},
	{"ambient.istio.io/redirection", Reported, "there is no ambient mode", nil},
	{"inject.istio.io/templates", Honoured, "", nil},
	{"istio.io/reroute-virtual-interfaces", Refused, "traffic of virtual machines in a pod is not captured", nil},
	{"istio.io/rev", Honoured, "", nil},
	{"prometheus.istio.io/merge-metrics", Honoured, "", isBool},
	{"proxy.istio.io/config", Honoured, "", nil},
	{"proxy.istio.io/overrides", Reported, "it is written by Istio's injector; put a container istio-proxy into the pod", nil},
	{"readiness.status.sidecar.istio.io/applicationPorts", Reported, "deprecated in Istio: the application's own readiness probe tells", nil},
	{"readiness.status.sidecar.istio.io/failureThreshold", Honoured, "", isSeconds},
	{"readiness.status.sidecar.istio.io/initialDelaySeconds", Honoured, "", isSeconds},
	{"readiness.status.sidecar.istio.io/periodSeconds", Honoured, "", isSeconds},
	{"sidecar.istio.io/agentLogLevel", Reported, "the proxy has no agent beside it; use sidecar.istio.io/logLevel", nil},
	{"sidecar.istio.io/bootstrapOverride", Refused, "there is no Envoy bootstrap", nil},
	{"sidecar.istio.io/componentLogLevel", Reported, "the proxy has one logger; use sidecar.istio.io/logLevel", nil},
	{"sidecar.istio.io/discoveryAddress", Refused, "deprecated in Istio: set discoveryAddress in proxy.istio.io/config", nil},
	{"sidecar.istio.io/extraStatTags", Reported, "the proxy's own metrics have fixed labels", nil},
	{"sidecar.istio.io/inject", Honoured, "", nil},
	{"sidecar.istio.io/interceptionMode", Honoured, "", isRedirect},
	{"sidecar.istio.io/logLevel", Honoured, "", checkLevel},
	{"sidecar.istio.io/nativeSidecar", Honoured, "", isBool},
	{"sidecar.istio.io/proxyCPU", Honoured, "", isQuantity},
	{"sidecar.istio.io/proxyCPULimit", Honoured, "", isQuantity},
	{"sidecar.istio.io/proxyImage", Honoured, "", nil},
	{"sidecar.istio.io/proxyImageType", Honoured, "", isImageType},
	{"sidecar.istio.io/proxyMemory", Honoured, "", isQuantity},
	{"sidecar.istio.io/proxyMemoryLimit", Honoured, "", isQuantity},
	{"sidecar.istio.io/rewriteAppHTTPProbers", Honoured, "", isBool},
	{"sidecar.istio.io/statsCompression", Reported, "metrics are not compressed", nil},
	{"sidecar.istio.io/statsEvictionInterval", Reported, "there are no Envoy stats to evict", nil},
	{"sidecar.istio.io/statsFlushInterval", Reported, "there are no Envoy stats to flush", nil},
	{"sidecar.istio.io/statsHistogramBins", Reported, "histograms have Istio's buckets", nil},
	{"sidecar.istio.io/statsHistogramBuckets", Reported, "histograms have Istio's buckets", nil},
	{"sidecar.istio.io/statsInclusionPrefixes", Reported, "all metrics are always there", nil},
	{"sidecar.istio.io/statsInclusionRegexps", Reported, "all metrics are always there", nil},
	{"sidecar.istio.io/statsInclusionSuffixes", Reported, "all metrics are always there", nil},
	{"sidecar.istio.io/status", Honoured, "", nil},
	{"sidecar.istio.io/userVolume", Honoured, "", isUserVolumes},
	{"sidecar.istio.io/userVolumeMount", Honoured, "", isUserMounts},
	{"status.sidecar.istio.io/port", Honoured, "", isPort},
	{"traffic.sidecar.istio.io/excludeInboundPorts", Honoured, "", isPorts},
	{"traffic.sidecar.istio.io/excludeInterfaces", Honoured, "", nil},
	{"traffic.sidecar.istio.io/excludeOutboundIPRanges", Honoured, "", isRanges},
	{"traffic.sidecar.istio.io/excludeOutboundPorts", Honoured, "", isPorts},
	{"traffic.sidecar.istio.io/includeInboundPorts", Honoured, "", starOr(isPorts)},
	{"traffic.sidecar.istio.io/includeOutboundIPRanges", Honoured, "", starOr(isRanges)},
	{"traffic.sidecar.istio.io/includeOutboundPorts", Honoured, "", isPorts},
	{"traffic.sidecar.istio.io/kubevirtInterfaces", Refused, "traffic of virtual machines in a pod is not captured", nil},
}

// families are the domains in which an unknown annotation is one that somebody mistyped, or that is newer than we are.
var families = []string{"inject.istio.io/", "proxy.istio.io/", "readiness.status.sidecar.istio.io/", "sidecar.istio.io/", "status.sidecar.istio.io/", "traffic.sidecar.istio.io/"}

// checkAnnotations looks at all that Istio would read. It returns warnings about those that have no effect.
func checkAnnotations(pod map[string]string) (warnings []string, err error) {
	for _, k := range slices.Sorted(maps.Keys(pod)) {
		i, found := slices.BinarySearchFunc(Annotations, k, func(a Annotation, k string) int { return strings.Compare(a.Name, k) })
		if !found {
			if slices.ContainsFunc(families, func(f string) bool { return strings.HasPrefix(k, f) }) {
				warnings = append(warnings, fmt.Sprintf("annotation %s is not known and has no effect", k))
			}
			continue
		}
		switch a := Annotations[i]; {
		case a.Support == Refused:
			return nil, fmt.Errorf("annotation %s: %q: is not supported: %s; remove it", k, pod[k], a.Why)
		case a.Support == Reported:
			warnings = append(warnings, fmt.Sprintf("annotation %s has no effect: %s", k, a.Why))
		case a.check != nil:
			if err := a.check(pod[k]); err != nil {
				return nil, fmt.Errorf("annotation %s: %q: %w", k, pod[k], err)
			}
		}
	}
	return warnings, nil
}

// logLevels are weft-proxy's.
var logLevels = []string{"trace", "debug", "info", "warning", "error", "critical", "off"}

func checkLevel(v string) error {
	if !slices.Contains(logLevels, v) {
		return fmt.Errorf("%q: want one of %s", v, strings.Join(logLevels, ", "))
	}
	return nil
}

func isBool(v string) error {
	if _, err := strconv.ParseBool(v); err != nil {
		return fmt.Errorf("want true or false")
	}
	return nil
}

func isSeconds(v string) error {
	if _, err := strconv.ParseUint(v, 10, 16); err != nil {
		return fmt.Errorf("want a number from 0 to 65535")
	}
	return nil
}

func isQuantity(v string) error {
	q, err := resource.ParseQuantity(v)
	if err != nil || q.Sign() <= 0 {
		return fmt.Errorf("want a quantity like 100m or 128Mi")
	}
	return nil
}

func isRedirect(v string) error {
	if v != "REDIRECT" {
		return fmt.Errorf("only REDIRECT is supported")
	}
	return nil
}

func isImageType(v string) error {
	if v != "" && v != "default" && v != "distroless" {
		return fmt.Errorf("there is one image, which is distroless: want default or distroless")
	}
	return nil
}

func isPort(v string) error {
	if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is not a port: want 1 to 65535", v)
	}
	return nil
}

func isPorts(v string) error { return each(v, isPort) }

func isRanges(v string) error {
	return each(v, func(s string) error {
		if p, err := netip.ParsePrefix(s); err != nil || !p.Addr().Is4() {
			return fmt.Errorf("%q is not an IPv4 range: want one like 10.0.0.0/8", s)
		}
		return nil
	})
}

func starOr(check func(string) error) func(string) error {
	return func(v string) error {
		if v == "*" {
			return nil
		}
		return check(v)
	}
}

// maxItems is weft-node's bound on a list.
const maxItems = 256

func each(v string, check func(string) error) error {
	n := 0
	for s := range strings.SplitSeq(v, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if n++; n > maxItems {
			return fmt.Errorf("more than %d items", maxItems)
		}
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

func isUserVolumes(v string) error { _, err := userVolumes(v); return err }
func isUserMounts(v string) error  { _, err := userMounts(v); return err }

// userVolumes reads volumes as a JSON list, or as an object by name.
func userVolumes(v string) ([]corev1.Volume, error) {
	return named(v, func(x *corev1.Volume) *string { return &x.Name })
}

// userMounts reads mounts as userVolumes does volumes.
func userMounts(v string) ([]corev1.VolumeMount, error) {
	return named(v, func(x *corev1.VolumeMount) *string { return &x.Name })
}

func named[T any](text string, name func(*T) *string) ([]T, error) {
	if text == "" {
		return nil, nil
	}
	var list []T
	if err := json.Unmarshal([]byte(text), &list); err == nil {
		for i := range list {
			if *name(&list[i]) == "" {
				return nil, fmt.Errorf("item %d has no name", i)
			}
		}
		return list, nil
	}
	byName := map[string]T{}
	if err := json.Unmarshal([]byte(text), &byName); err != nil {
		return nil, fmt.Errorf("want a JSON list, or an object by name: %w", err)
	}
	for _, k := range slices.Sorted(maps.Keys(byName)) {
		x := byName[k]
		*name(&x) = k
		list = append(list, x)
	}
	return list, nil
}
