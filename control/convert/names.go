package convert

import (
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

const maxAnnotations = 256 << 10 // bytes of all annotations together, as the Kubernetes API server allows

var (
	labelRE     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	labelText   = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`)
	subdomainRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	tokenRE     = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	portNameRE  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	hostLabelRE = regexp.MustCompile(`^[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?$`)
)

// isLabel tells whether s is a DNS-1123 label: a namespace, a service.
func isLabel(s string) bool { return len(s) <= 63 && labelRE.MatchString(s) }

// isSubdomain tells whether s is a DNS-1123 subdomain: most object names.
func isSubdomain(s string) bool { return len(s) <= 253 && subdomainRE.MatchString(s) }

// isHeaderName tells whether s is a token of RFC 9110, 5.6.2.
func isHeaderName(s string) bool { return tokenRE.MatchString(s) }

func checkMetadata(w *walker, o *Object, m map[string]any) {
	valid, what := isSubdomain, "lower-case letters, digits, '-' and '.', at most 253"
	switch o.Key.Kind {
	case model.KindService, model.KindNamespace:
		valid, what = isLabel, "lower-case letters, digits and '-', at most 63, beginning and ending with a letter or digit"
	}
	if !valid(o.Key.Name) {
		w.problem(o, admin.SeverityError, CodeInvalidName, "metadata.name", o.Key.Name, "the name is not valid", "use "+what)
	}
	if o.Key.Namespace != "" && !isLabel(o.Key.Namespace) {
		w.problem(o, admin.SeverityError, CodeInvalidName, "metadata.namespace", o.Key.Namespace, "the namespace is not valid",
			"use lower-case letters, digits and '-', at most 63")
	}
	labels, _ := m["labels"].(map[string]any)
	for _, k := range sortedKeys(labels) {
		checkLabel(w, o, "metadata.labels", k, fmt.Sprint(labels[k]))
	}
	annotations, _ := m["annotations"].(map[string]any)
	total := 0
	for _, k := range sortedKeys(annotations) {
		v := fmt.Sprint(annotations[k])
		total += len(k) + len(v)
		checkAnnotation(w, o, k, v)
	}
	if total > maxAnnotations {
		w.problem(o, admin.SeverityError, CodeTooLarge, "metadata.annotations", fmt.Sprintf("%d bytes", total), "the annotations are too large", fmt.Sprintf("at most %d bytes", maxAnnotations))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func checkLabel(w *walker, o *Object, path, k, v string) {
	if msg := labelProblem(k, v); msg != "" {
		w.problem(o, admin.SeverityError, CodeInvalidLabel, path+"["+k+"]", v, msg,
			"use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
	}
}

func labelProblem(k, v string) string {
	switch {
	case !isLabelKey(k):
		return fmt.Sprintf("the label key %q is not valid", k)
	case len(v) > 63 || !labelText.MatchString(v):
		return "the label value is not valid"
	}
	return ""
}

func isLabelKey(k string) bool {
	prefix, name, slash := strings.Cut(k, "/")
	if !slash {
		name = k
	} else if !isSubdomain(prefix) {
		return false
	}
	return name != "" && len(name) <= 63 && labelText.MatchString(name)
}

// knownAnnotations are those of Istio's domains that have their effect, or none at all.
var knownAnnotations = map[string]bool{
	annotationExportTo:                 true,
	"networking.istio.io/service-type": true, // of a Gateway's Service; local mode deploys none
	// Written by istioctl and operators for their own use.
	"install.operator.istio.io/owning-resource": true,
}

// annotationTemplates says what a pod template is: a sidecar's workload or a gateway.
const annotationTemplates = "inject.istio.io/templates"

const annotationExportTo = "networking.istio.io/exportTo"

func checkAnnotation(w *walker, o *Object, k, v string) {
	if !isLabelKey(k) && !isLabelKey(strings.ToLower(k)) {
		w.problem(o, admin.SeverityError, CodeInvalidLabel, "metadata.annotations["+k+"]", v, fmt.Sprintf("the annotation key %q is not valid", k), "use prefix/name")
		return
	}
	domain, _, ok := strings.Cut(k, "/")
	if !ok || domain != "istio.io" && !strings.HasSuffix(domain, ".istio.io") || knownAnnotations[k] {
		return
	}
	if k == "istio.io/dry-run" {
		if v != "false" {
			w.problem(o, admin.SeverityError, CodeAnnotation, "metadata.annotations["+k+"]", v, "dry run is not implemented: the policy would be enforced", "remove the policy until it is to be enforced")
		}
		return
	}
	if o.Key.Kind == model.KindPod {
		return
	}
	w.problem(o, admin.SeverityWarning, CodeAnnotation, "metadata.annotations["+k+"]", v, "the annotation is not implemented and has no effect", "remove it")
}

// expandHost turns a short name into the full name of a service in ns; names with a dot, wildcards and addresses stay.
func expandHost(host, ns, domain string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || strings.ContainsAny(host, ".*:") {
		return host
	}
	return host + "." + ns + ".svc." + domain
}

// hostProblem says what is wrong with a host: a DNS name, an address, or with wild a name whose first label is "*".
func hostProblem(host string, wild bool) string {
	if host == "" {
		return "the host is empty"
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	name := strings.TrimSuffix(host, ".")
	if strings.Contains(name, "*") {
		if !wild {
			return "a wildcard is not allowed here"
		}
		if name == "*" {
			return ""
		}
		rest, ok := strings.CutPrefix(name, "*.")
		if !ok {
			return "a wildcard must be the whole first label, as in *.example.com"
		}
		name = rest
	}
	if len(name) > 253 {
		return "the host is longer than 253 characters"
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > 63 || !hostLabelRE.MatchString(label) {
			return fmt.Sprintf("the part %q of the host is not a DNS label", label)
		}
	}
	return ""
}

// regexProblem compiles a regular expression as the proxy will (RE2, full match).
func regexProblem(re string) string {
	const maxRegex = 1024 // Istio's limit
	if len(re) > maxRegex {
		return fmt.Sprintf("the expression is longer than %d characters", maxRegex)
	}
	if _, err := regexp.Compile(re); err != nil {
		if se, ok := err.(*syntax.Error); ok {
			if i := strings.Index(re, se.Expr); i >= 0 && se.Expr != "" {
				return fmt.Sprintf("%s at character %d: %s", se.Code, i+1, se.Expr)
			}
			return fmt.Sprintf("%s: %s", se.Code, se.Expr)
		}
		return err.Error()
	}
	return ""
}
