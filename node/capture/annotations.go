package capture

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Annotations of a pod that change what is captured (Istio's names).
const (
	annotationPrefix = "traffic.sidecar.istio.io/"

	AnnotationIncludeOutboundRanges = annotationPrefix + "includeOutboundIPRanges"
	AnnotationExcludeOutboundRanges = annotationPrefix + "excludeOutboundIPRanges"
	AnnotationIncludeOutboundPorts  = annotationPrefix + "includeOutboundPorts"
	AnnotationExcludeOutboundPorts  = annotationPrefix + "excludeOutboundPorts"
	AnnotationIncludeInboundPorts   = annotationPrefix + "includeInboundPorts"
	AnnotationExcludeInboundPorts   = annotationPrefix + "excludeInboundPorts"
	AnnotationExcludeInterfaces     = annotationPrefix + "excludeInterfaces"
)

// maxItems bounds one annotation: every item is a rule that each new
// connection may have to pass.
const maxItems = 256

// AnnotationError says which annotation cannot be honoured and why.
type AnnotationError struct {
	Annotation string
	Value      string
	Reason     string
}

func (e *AnnotationError) Error() string {
	return fmt.Sprintf("annotation %s: %q: %s", e.Annotation, e.Value, e.Reason)
}

// ParseTraffic reads the annotations traffic.sidecar.istio.io/*. One that is
// not supported, or has a bad value, is an *AnnotationError.
func ParseTraffic(annotations map[string]string) (Traffic, error) {
	var t Traffic
	keys := make([]string, 0, len(annotations))
	for k := range annotations {
		if strings.HasPrefix(k, annotationPrefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := t.set(k, annotations[k]); err != nil {
			return Traffic{}, &AnnotationError{Annotation: k, Value: annotations[k], Reason: err.Error()}
		}
	}
	return t, nil
}

func (t *Traffic) set(key, value string) (err error) {
	switch key {
	case AnnotationIncludeOutboundRanges:
		t.OutboundRanges, err = starOr(value, parseRange)
	case AnnotationExcludeOutboundRanges:
		t.ExcludeOutboundRanges, err = list(value, parseRange)
	case AnnotationIncludeOutboundPorts:
		t.OutboundPorts, err = list(value, parsePort)
	case AnnotationExcludeOutboundPorts:
		t.ExcludeOutboundPorts, err = list(value, parsePort)
	case AnnotationIncludeInboundPorts:
		t.InboundPorts, err = starOr(value, parsePort)
	case AnnotationExcludeInboundPorts:
		t.ExcludeInboundPorts, err = list(value, parsePort)
	case AnnotationExcludeInterfaces:
		t.ExcludeInterfaces, err = list(value, parseInterface)
	default:
		return fmt.Errorf("is not supported; remove it")
	}
	return err
}

// starOr reads "*" as nil, which means everything.
func starOr[T any](value string, parse func(string) (T, error)) ([]T, error) {
	if strings.TrimSpace(value) == "*" {
		return nil, nil
	}
	return list(value, parse)
}

func list[T any](value string, parse func(string) (T, error)) ([]T, error) {
	out := []T{}
	for item := range strings.SplitSeq(value, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		if len(out) == maxItems {
			return nil, fmt.Errorf("more than %d items", maxItems)
		}
		v, err := parse(item)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port: want 1 to 65535", s)
	}
	return uint16(n), nil
}

func parseInterface(s string) (string, error) {
	if len(s) > maxInterfaceName || strings.ContainsAny(s, "/ \t\n\"") {
		return "", fmt.Errorf("%q is not the name of a link: want at most %d characters", s, maxInterfaceName)
	}
	return s, nil
}

func parseRange(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("%q is not an IPv4 range: want one like 10.0.0.0/8", s)
	}
	return p.Masked(), nil
}
