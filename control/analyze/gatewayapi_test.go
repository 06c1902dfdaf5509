package analyze_test

import (
	"path/filepath"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
)

// The samples of the Gateway API have nothing to say, each on top of Bookinfo and its versions.
func TestTheGatewayAPISamplesHaveNothingToSay(t *testing.T) {
	files, err := filepath.Glob(samples + "gateway-api/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d samples (%v)", len(files), err)
	}
	var base []convert.Object
	for _, f := range []string{"platform/bookinfo.yaml", "platform/ingress.yaml", "gateway-api/bookinfo-versions.yaml"} {
		objs, ds := decodeFile(t, samples+f)
		if convert.HasErrors(ds) {
			t.Fatalf("%s: %+v", f, ds)
		}
		base = append(base, objs...)
	}
	for _, f := range files {
		if ds := judge(t, f, base); len(ds) > 0 {
			t.Errorf("%s:\n%s", f, render(ds))
		}
	}
}

func TestWhatGatewayAPIObjectsAskForInVain(t *testing.T) {
	const gateway = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP, hostname: "*.example.com"}]}
---
`
	const head = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: "
	for name, c := range map[string]struct{ text, code, field string }{
		"a backend that is not there":     {head + "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: rewievs, port: 9080}]}]}", analyze.CodeGatewayAPI, "spec.rules"},
		"a port that is not there":        {head + "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: reviews, port: 80}]}]}", analyze.CodeGatewayAPI, "spec.rules"},
		"a Gateway that is not there":     {head + "{parentRefs: [{name: none}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}", analyze.CodeUnknownParent, "spec.parentRefs[0].name"},
		"no parent":                       {head + "{rules: [{backendRefs: [{name: reviews, port: 9080}]}]}", analyze.CodeUnknownParent, "spec.parentRefs"},
		"a section that is not there":     {head + "{parentRefs: [{name: edge, sectionName: x}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}", analyze.CodeGatewayAPI, "spec.parentRefs"},
		"a host that no listener has":     {head + "{parentRefs: [{name: edge}], hostnames: [a.other], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}", analyze.CodeGatewayAPI, "spec.parentRefs"},
		"a Service that is not there":     {head + "{parentRefs: [{group: '', kind: Service, name: none}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}", analyze.CodeGatewayAPI, "spec.parentRefs"},
		"a class that is not there":       {"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x}\nspec: {gatewayClassName: other, listeners: [{name: http, port: 80, protocol: HTTP}]}\n", analyze.CodeUnknownParent, "spec.gatewayClassName"},
		"a certificate that is not there": {"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x}\nspec: {gatewayClassName: weft, listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}]}\n", analyze.CodeGatewayAPI, "spec.listeners"},
	} {
		t.Run(name, func(t *testing.T) {
			objs, ds := convert.Decode(admin.File{Name: "in.yaml", Content: gateway + c.text}, convert.Options{})
			if len(ds) > 0 {
				t.Fatal(render(ds))
			}
			ds = analyze.Check(bookinfo(t), objs, nil, analyze.Options{})
			if len(ds) != 1 || ds[0].Code != c.code || ds[0].Field != c.field || ds[0].Severity != admin.SeverityWarning || ds[0].Line == 0 || ds[0].Hint == "" {
				t.Errorf("want one warning %s at %s, got:\n%s", c.code, c.field, render(ds))
			}
		})
	}
}
