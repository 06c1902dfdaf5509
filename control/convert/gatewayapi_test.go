package convert_test

import (
	"fmt"
	"strings"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

func route(spec string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: " + spec + "\n"
}

func rule(spec string) string { return route("{rules: [" + spec + "]}") }

func filter(spec string) string { return rule("{filters: [" + spec + "]}") }

func gatewayAPIObject(kind, spec string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: " + kind + "\nmetadata: {name: x}\nspec: " + spec + "\n"
}

func k8sGateway(spec string) string { return gatewayAPIObject("Gateway", spec) }

func listenerOf(spec string) string {
	return k8sGateway("{gatewayClassName: weft, listeners: [" + spec + "]}")
}

// wrong decodes text that must be refused and returns the errors as "code field".
func problems(t *testing.T, text string) []string {
	t.Helper()
	objs, ds := decode(text, convert.Options{})
	for i := range objs {
		ms, more := convert.ToModel(&objs[i], model.Mesh{})
		if convert.HasErrors(more) && len(ms) > 0 {
			t.Errorf("%v has errors and values", objs[i])
		}
		ds = append(ds, more...)
	}
	var out []string
	for _, d := range ds {
		if d.Severity == admin.SeverityError {
			out = append(out, d.Code+" "+d.Field)
			if d.Line == 0 || d.Message == "" || d.Hint == "" {
				t.Errorf("no place, message or hint: %+v", d)
			}
		}
	}
	return out
}

func TestTheGatewayAPIsBadInputsAreRefused(t *testing.T) {
	tls := func(s string) string { return listenerOf("{name: a, port: 443, " + s + "}") }
	policy := func(targets, validation string) string {
		return gatewayAPIObject("BackendTLSPolicy", "{targetRefs: ["+targets+"], validation: {"+validation+"}}")
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":                    {route("{hosts: [a]}"), "unknown-field spec.hosts"},
		"unknown version":                  {strings.Replace(route("{}"), "/v1\n", "/v2\n", 1), "unknown-kind apiVersion"},
		"UDPRoute":                         {gatewayAPIObject("UDPRoute", "{}"), "unknown-kind kind"},
		"wildcard inside a host":           {route("{hostnames: [a.*.example.com]}"), "invalid-host spec.hostnames[0]"},
		"address for a host":               {route("{hostnames: [10.1.2.3]}"), "invalid-host spec.hostnames[0]"},
		"upper case host":                  {route("{hostnames: [Example.com]}"), "invalid-host spec.hostnames[0]"},
		"host with port":                   {route(`{hostnames: ["a.example.com:80"]}`), "invalid-host spec.hostnames[0]"},
		"parent of a strange kind":         {route("{parentRefs: [{name: a, kind: Deployment, group: apps}]}"), "unsupported-field spec.parentRefs[0].kind"},
		"the same parent twice":            {route("{parentRefs: [{name: a}, {name: a}]}"), "duplicate-object spec.parentRefs[1]"},
		"default gateways":                 {route("{useDefaultGateways: All}"), "unsupported-field spec.useDefaultGateways"},
		"relative path":                    {rule("{matches: [{path: {value: a}}]}"), "invalid-value spec.rules[0].matches[0].path.value"},
		"dot dot path":                     {rule("{matches: [{path: {value: /a/../b}}]}"), "invalid-value spec.rules[0].matches[0].path.value"},
		"query in a path":                  {rule(`{matches: [{path: {value: "/a?b"}}]}`), "invalid-value spec.rules[0].matches[0].path.value"},
		"strange kind of path":             {rule("{matches: [{path: {type: Prefix, value: /a}}]}"), "invalid-value spec.rules[0].matches[0].path.type"},
		"bad regex":                        {rule("{matches: [{path: {type: RegularExpression, value: '/(?=a)'}}]}"), "invalid-regex spec.rules[0].matches[0].path.value"},
		"bad header regex":                 {rule("{matches: [{headers: [{name: a, type: RegularExpression, value: '('}]}]}"), "invalid-regex spec.rules[0].matches[0].headers[0].value"},
		"header without a value":           {rule("{matches: [{headers: [{name: a, value: ''}]}]}"), "missing-field spec.rules[0].matches[0].headers[0].value"},
		"header with a bad name":           {rule("{matches: [{headers: [{name: 'a b', value: c}]}]}"), "invalid-name spec.rules[0].matches[0].headers[0].name"},
		"method in lower case":             {rule("{matches: [{method: get}]}"), "invalid-value spec.rules[0].matches[0].method"},
		"Service without a port":           {rule("{backendRefs: [{name: a}]}"), "missing-field spec.rules[0].backendRefs[0].port"},
		"negative weight":                  {rule("{backendRefs: [{name: a, port: 80, weight: -1}]}"), "invalid-weight spec.rules[0].backendRefs[0].weight"},
		"port out of range":                {rule("{backendRefs: [{name: a, port: 0}]}"), "invalid-port spec.rules[0].backendRefs[0].port"},
		"redirect with a backend":          {rule("{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 80}]}"), "exclusive-fields spec.rules[0].backendRefs"},
		"redirect and rewrite":             {filter("{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}"), "exclusive-fields spec.rules[0].filters"},
		"the same filter twice":            {filter("{type: CORS, cors: {}}, {type: CORS, cors: {}}"), "exclusive-fields spec.rules[0].filters[1].type"},
		"filter without its field":         {filter("{type: URLRewrite}"), "missing-field spec.rules[0].filters[0].urlRewrite"},
		"filter with another's field":      {filter("{type: CORS, cors: {}, urlRewrite: {}}"), "exclusive-fields spec.rules[0].filters[0].urlRewrite"},
		"filter of a strange type":         {filter("{type: Compress}"), "invalid-value spec.rules[0].filters[0].type"},
		"ExtensionRef":                     {filter("{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}"), "unsupported-field spec.rules[0].filters[0].type"},
		"ExternalAuth":                     {filter("{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: a, port: 80}}}"), "unsupported-field spec.rules[0].filters[0].type"},
		"redirect to a strange scheme":     {filter("{type: RequestRedirect, requestRedirect: {scheme: ftp}}"), "invalid-value spec.rules[0].filters[0].requestRedirect.scheme"},
		"redirect with a strange status":   {filter("{type: RequestRedirect, requestRedirect: {statusCode: 300}}"), "invalid-value spec.rules[0].filters[0].requestRedirect.statusCode"},
		"rewrite to a wildcard":            {filter("{type: URLRewrite, urlRewrite: {hostname: '*.a'}}"), "invalid-host spec.rules[0].filters[0].urlRewrite.hostname"},
		"prefix replaced without prefix":   {rule("{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}"), "exclusive-fields spec.rules[0].filters[0].urlRewrite.path.type"},
		"path modifier without a value":    {filter("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}"), "missing-field spec.rules[0].filters[0].urlRewrite.path.replaceFullPath"},
		"path modifier with both":          {filter("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /a, replacePrefixMatch: /b}}}"), "exclusive-fields spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch"},
		"mirror with percent and fraction": {filter("{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, percent: 5, fraction: {numerator: 1}}}"), "exclusive-fields spec.rules[0].filters[0].requestMirror.fraction"},
		"fraction above one":               {filter("{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, fraction: {numerator: 3, denominator: 2}}}"), "invalid-value spec.rules[0].filters[0].requestMirror.fraction"},
		"origin without a scheme":          {filter("{type: CORS, cors: {allowOrigins: [example.com]}}"), "invalid-value spec.rules[0].filters[0].cors.allowOrigins[0]"},
		"header set twice":                 {filter("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}, {name: A, value: c}]}}"), "exclusive-fields spec.rules[0].filters[0].requestHeaderModifier.set[1].name"},
		"rewrite at a backend":             {rule("{backendRefs: [{name: a, port: 80, filters: [{type: URLRewrite, urlRewrite: {}}]}]}"), "unsupported-field spec.rules[0].backendRefs[0].filters[0].type"},
		"duration without a unit":          {rule("{timeouts: {request: '5'}}"), "invalid-duration spec.rules[0].timeouts.request"},
		"duration with a fraction":         {rule("{timeouts: {request: 1.5s}}"), "invalid-duration spec.rules[0].timeouts.request"},
		"one try longer than all":          {rule("{timeouts: {request: 1s, backendRequest: 2s}}"), "invalid-duration spec.rules[0].timeouts.backendRequest"},
		"retry of success":                 {rule("{retry: {codes: [200]}}"), "invalid-value spec.rules[0].retry.codes[0]"},
		"session persistence":              {rule("{sessionPersistence: {}}"), "unsupported-field spec.rules[0].sessionPersistence"},
		"two rules of one name":            {rule("{name: a}, {name: a}"), "duplicate-object spec.rules[1].name"},
		"gRPC service with a slash":        {gatewayAPIObject("GRPCRoute", "{rules: [{matches: [{method: {service: a/b}}]}]}"), "invalid-value spec.rules[0].matches[0].method.service"},
		"gRPC match of nothing":            {gatewayAPIObject("GRPCRoute", "{rules: [{matches: [{method: {}}]}]}"), "missing-field spec.rules[0].matches[0].method.service"},
		"gRPC with a redirect":             {gatewayAPIObject("GRPCRoute", "{rules: [{filters: [{type: RequestRedirect}]}]}"), "invalid-value spec.rules[0].filters[0].type"},
		"TLSRoute without hosts":           {gatewayAPIObject("TLSRoute", "{rules: [{backendRefs: [{name: a, port: 80}]}]}"), "missing-field spec.hostnames"},
		"TCPRoute with two rules":          {gatewayAPIObject("TCPRoute", "{rules: [{backendRefs: [{name: a, port: 80}]}, {backendRefs: [{name: a, port: 80}]}]}"), "invalid-value spec.rules"},
		"grant without from":               {gatewayAPIObject("ReferenceGrant", "{from: [], to: [{group: '', kind: Service}]}"), "missing-field spec.from"},
		"controller name":                  {gatewayAPIObject("GatewayClass", "{controllerName: weft}"), "invalid-value spec.controllerName"},
		"no listener":                      {listenerOf(""), "missing-field spec.listeners"},
		"two listeners of one name":        {listenerOf("{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}"), "duplicate-object spec.listeners[1].name"},
		"two listeners of one place":       {listenerOf("{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}"), "duplicate-port spec.listeners[1]"},
		"protocol UDP":                     {listenerOf("{name: a, port: 80, protocol: UDP}"), "unsupported-field spec.listeners[0].protocol"},
		"HTTP with tls":                    {tls("protocol: HTTP, tls: {certificateRefs: [{name: a}]}"), "exclusive-fields spec.listeners[0].tls"},
		"HTTPS passed through":             {tls("protocol: HTTPS, tls: {mode: Passthrough}"), "invalid-value spec.listeners[0].tls.mode"},
		"TLS without a mode":               {tls("protocol: TLS, tls: {certificateRefs: [{name: a}]}"), "missing-field spec.listeners[0].tls.mode"},
		"TCP with a host":                  {tls("protocol: TCP, hostname: a.b"), "exclusive-fields spec.listeners[0].hostname"},
		"no certificate":                   {tls("protocol: HTTPS, tls: {}"), "missing-field spec.listeners[0].tls.certificateRefs"},
		"certificate of a ConfigMap":       {tls("protocol: HTTPS, tls: {certificateRefs: [{kind: ConfigMap, name: a}]}"), "unsupported-field spec.listeners[0].tls.certificateRefs[0].kind"},
		"selector without labels":          {tls("protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}}"), "missing-field spec.listeners[0].allowedRoutes.namespaces.selector"},
		"routes of nobody":                 {tls("protocol: HTTP, allowedRoutes: {namespaces: {from: Nobody}}"), "invalid-value spec.listeners[0].allowedRoutes.namespaces.from"},
		"address that is none":             {k8sGateway("{gatewayClassName: weft, listeners: [{name: a, port: 80, protocol: HTTP}], addresses: [{value: here}]}"), "invalid-value spec.addresses[0].value"},
		"client CA of a strange kind":      {k8sGateway("{gatewayClassName: weft, listeners: [{name: a, port: 80, protocol: HTTP}], tls: {frontend: {default: {validation: {caCertificateRefs: [{group: a.b, kind: C, name: d}]}}}}}"), "unsupported-field spec.tls.frontend.default.validation.caCertificateRefs[0].kind"},
		"policy without a host":            {policy("{group: '', kind: Service, name: a}", "wellKnownCACertificates: System"), "missing-field spec.validation.hostname"},
		"policy without roots":             {policy("{group: '', kind: Service, name: a}", "hostname: a.b"), "missing-field spec.validation.caCertificateRefs"},
		"policy with both kinds of roots":  {policy("{group: '', kind: Service, name: a}", "hostname: a.b, wellKnownCACertificates: System, caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]"), "exclusive-fields spec.validation.wellKnownCACertificates"},
		"policy for a Deployment":          {policy("{group: apps, kind: Deployment, name: a}", "hostname: a.b, wellKnownCACertificates: System"), "unsupported-field spec.targetRefs[0].kind"},
		"policy with the target twice":     {policy("{group: '', kind: Service, name: a}, {group: '', kind: Service, name: a}", "hostname: a.b, wellKnownCACertificates: System"), "duplicate-object spec.targetRefs[1]"},
		"alternative name of two types":    {policy("{group: '', kind: Service, name: a}", "hostname: a.b, wellKnownCACertificates: System, subjectAltNames: [{type: URI, uri: 'spiffe://a/b', hostname: c.d}]"), "exclusive-fields spec.validation.subjectAltNames[0].hostname"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := problems(t, c.text); len(got) != 1 || got[0] != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTheTwoGatewaysAreToldApart(t *testing.T) {
	objs, ds := decode(k8sGateway("{gatewayClassName: weft, listeners: [{name: a, port: 80, protocol: HTTP}]}")+`---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: x}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
`, convert.Options{})
	if len(ds) != 0 || len(objs) != 2 {
		t.Fatalf("%v %+v", objs, ds)
	}
	if objs[0].Key.Kind != model.KindK8sGateway || objs[1].Key.Kind != model.KindGateway {
		t.Errorf("kinds %s and %s", objs[0].Key.Kind, objs[1].Key.Kind)
	}
	again, ds := convert.DecodeStored(objs[0].Raw, "store", convert.Options{})
	if len(ds) != 0 || again.Key != objs[0].Key {
		t.Errorf("the stored form reads as %v: %+v", again.Key, ds)
	}
}

// A key must not get out by any way that shows objects or complains about them.
func TestTheContentOfASecretIsNotShown(t *testing.T) {
	const private = "c2VjcmV0LWtleQ=="
	text := "apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {last: " + private + "}}\ntype: Opaque\ndata: {tls.key: " + private + "}\nstringData: {other: " + private + "}\n"
	objs, ds := decode(text, convert.Options{})
	if len(objs) != 1 || len(ds) != 0 {
		t.Fatalf("%v %+v", objs, ds)
	}
	ms, ds := convert.ToModel(&objs[0], model.Mesh{})
	if len(ms) != 1 || string(ms[0].(*model.Secret).Key) != "secret-key" {
		t.Fatalf("%v %+v", ms, ds)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %+v %#v %s", objs[0], objs[0], objs[0], objs[0].Admin(1).Raw, ms[0], ms[0], fmt.Sprint(ds))
	if strings.Contains(shown, private) || strings.Contains(shown, "secret-key") {
		t.Errorf("shown: %s", shown)
	}
	if !strings.Contains(shown, "hidden: 16 characters") {
		t.Errorf("the names of what it holds are not shown: %s", shown)
	}
	if got := problems(t, strings.Replace(text, "other: "+private, "other: '(hidden: 16 characters)'", 1)); len(got) != 1 || got[0] != "invalid-value stringData[other]" {
		t.Errorf("what is shown is taken for content: %q", got)
	}
	for _, bad := range []string{"data: {tls.key: s3cret%}", "data: {tls.key: {a: s3cret}}", "stringData: {a: [s3cret]}", "stringData: s3cret", "data: {a: s3cret, a: s3cret}"} {
		_, ds := decode("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"+bad+"\n", convert.Options{})
		if !convert.HasErrors(ds) || strings.Contains(fmt.Sprintf("%+v", ds), "s3cret") {
			t.Errorf("%s: %+v", bad, ds)
		}
	}
}

func TestWhatIsWrongWithASecretIsSaid(t *testing.T) {
	for body, want := range map[string]string{
		"data: {}":                                    "the Secret has neither",
		"stringData: {tls.crt: a}":                    "tls.key is missing",
		"stringData: {tls.key: a}":                    "tls.crt is missing",
		"stringData: {tls.crt: a, tls.key: b}":        "are not a certificate and its key",
		"stringData: {ca.crt: nothing}":               "holds no certificate",
		"stringData: {cert: a}":                       "tls.key is missing",
		"stringData: {cacert: nothing, other: ready}": "holds no certificate",
	} {
		objs, ds := decode("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"+body+"\n", convert.Options{})
		if len(objs) != 1 {
			t.Fatalf("%s: %+v", body, ds)
		}
		ms, _ := convert.ToModel(&objs[0], model.Mesh{})
		if got := ms[0].(*model.Secret).Problem; !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}
