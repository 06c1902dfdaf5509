package refusals_test

import (
	"errors"
	"fmt"
	"strings"
)

// reason says why a cluster does not refuse an input in the words of weft apply.
type reason string

const (
	sameText reason = "" // it does: all that is not in others

	unknownField reason = "refused in the API server's words: it decodes an object, and refuses fields that its definition has not, before it asks a webhook"
	kubernetes   reason = "refused in the API server's words: the kind is Kubernetes' own"
	unknownKind  reason = "refused in kubectl's words: the cluster has no such kind or version"
	client       reason = "refused in kubectl's words: what it reads is no object that could be sent"

	reference reason = "taken, with a warning in the words of weft apply: the other object may come later"
	yamlOnly  reason = "taken: kubectl reads YAML more generously, and what it sends is in order"
	legal     reason = "taken: it is right in Kubernetes; the mesh's part of it is said by weft analyze"
)

// other is what becomes of an input in a cluster, if not that it is refused in the words of weft apply.
type other struct {
	why  reason
	said string // part of the refusal, or of the warning
}

// holds compares with what happened.
func (o other) holds(in input) error {
	switch o.why {
	case sameText:
		if !in.same() {
			return errors.New("it is not refused in the words of apply")
		}
	case unknownField, kubernetes, unknownKind, client:
		if in.said == "" || in.asked || !strings.Contains(in.said, o.said) {
			return fmt.Errorf("want a refusal that is not the webhook's, with %q", o.said)
		}
	case reference:
		if in.said != "" || !strings.Contains(in.warnings, o.said) || !strings.Contains(in.apply, o.said) {
			return fmt.Errorf("want a warning, and in apply an error, with %q", o.said)
		}
	default:
		if in.said != "" {
			return errors.New("it is refused")
		}
	}
	return nil
}

// others is everything that is not refused in the words of weft apply. docs/kubernetes/refusals.md says the same for people.
var others = map[string]other{
	"field-misspelled":    {unknownField, `unknown field "spec.http[0].route[0].destination.subst"`},
	"field-snake-case":    {unknownField, `unknown field "spec.trafficPolicy.load_balancer"`},
	"second-document-bad": {unknownField, `unknown field "spec.hots"`},

	"deploy-duplicate-container": {kubernetes, `Duplicate value: "app"`},
	"deploy-misspelled-field":    {kubernetes, `unknown field "spec.template.spec.containers[0].comand"`},
	"deploy-selector-mismatch":   {kubernetes, "`selector` does not match template `labels`"},
	// These two have no image, which local processes do not need.
	"deploy-unknown-account":          {kubernetes, "image: Required value"},
	"deployment-proxy-config-sidecar": {kubernetes, "image: Required value"},
	"ingress-class-controller":        {kubernetes, "must be a domain-prefixed path"},
	"ingress-empty":                   {kubernetes, "either `defaultBackend` or `rules` must be specified"},
	"ingress-host-port":               {kubernetes, "a lowercase RFC 1123 subdomain"},
	"ingress-no-backend":              {kubernetes, "resource or service backend is required"},
	"ingress-path-slashes":            {kubernetes, "must not contain '//'"},
	"ingress-path-type":               {kubernetes, "pathType must be specified"},
	"ingress-port-twice":              {kubernetes, "cannot set both port name & port number"},
	"kind-volume":                     {kubernetes, "must specify a volume type"},
	"label-number":                    {kubernetes, "cannot unmarshal number"},
	"label-value-invalid":             {kubernetes, "a valid label must be"},
	"name-service-dots":               {kubernetes, "a DNS-1035 label must consist of"},
	"name-upper-case":                 {kubernetes, "a DNS-1035 label must consist of"},
	"namespace-invalid":               {kubernetes, `namespaces "my_ns" not found`},
	"svc-port-twice":                  {kubernetes, "spec.ports[1]: Duplicate value"},
	"svc-port-unnamed":                {kubernetes, "spec.ports[1].name: Required value"},

	"ingress-version":    {unknownKind, `no matches for kind "Ingress" in version "networking.k8s.io/v1beta1"`},
	"kind-misspelled":    {unknownKind, `no matches for kind "VirtualServce"`},
	"kind-wrong-version": {unknownKind, `no matches for kind "Deployment" in version "apps/v1beta1"`},

	"generate-name":            {client, "cannot use generate name with apply"},
	"kind-api-version-missing": {client, "apiVersion not set"},
	"kind-missing":             {client, "kind not set"},
	"name-missing":             {client, "resource name may not be empty"},
	"text-not-utf8":            {client, "invalid leading UTF-8 octet"},
	"yaml-alias-bomb":          {client, "excessive aliasing"},
	"yaml-bad-indentation":     {client, "mapping values are not allowed in this context"},
	"yaml-list-document":       {client, "not an object"},
	"yaml-not-an-object":       {client, "not an object"},
	"yaml-self-alias":          {client, "value contains itself"},
	"yaml-tab-indentation":     {client, "found character that cannot start any token"},
	"yaml-unclosed-quote":      {client, "found unexpected end of stream"},
	"yaml-unknown-anchor":      {client, "unknown anchor 'nowhere'"},

	"dr-port-not-on-service":    {reference, "has no such port [unknown-port]"},
	"dr-unknown-host":           {reference, "no service has the host nowhere.default.svc.cluster.local [unknown-host]"},
	"ingress-port-name":         {reference, "requests are answered 503"}, // its Service comes after it
	"ingress-service":           {reference, "requests are answered 503 [unknown-host]"},
	"ref-gateway-host":          {reference, "no server of the Gateway has a host of this VirtualService [gateway-host-mismatch]"},
	"ref-unknown-external-host": {reference, "no service has the host api.example.com [unknown-host]"},
	"ref-unknown-gateway":       {reference, "bookinfo-gatewy [unknown-gateway]"},
	"ref-unknown-host":          {reference, "no service has the host reviewz.default.svc.cluster.local [unknown-host]"},
	"ref-unknown-port":          {reference, "has no such port [unknown-port]"},
	"ref-unknown-subset":        {reference, "no DestinationRule defines the subset v9 of reviews.default.svc.cluster.local [unknown-subset]"},

	"object-twice":            {yamlOnly, ""}, // the second over the first
	"type-bool-yes":           {yamlOnly, ""}, // yes is true
	"yaml-duplicate-key":      {yamlOnly, ""}, // the last counts
	"yaml-duplicate-key-deep": {yamlOnly, ""},
	"yaml-merge-key":          {yamlOnly, ""},
	"yaml-null-selector":      {yamlOnly, ""}, // not set

	"deployment-proxy-config":      {legal, ""},
	"kind-gateway-api":             {legal, ""}, // UDPRoute
	"kind-pod":                     {legal, ""},
	"svc-protocol-sctp":            {legal, ""},
	"svc-unknown-target-port":      {legal, ""},
	"unsupported-external-name":    {legal, ""},
	"unsupported-session-affinity": {legal, ""},
}
