package convert_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

const withCORS = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: default}
spec:
  hosts: [a]
  http:
  - corsPolicy: `

// models are what one object becomes, with everything that is said about it.
func models(text string) ([]model.Object, []admin.Diagnostic) {
	objs, diags := decode(text, convert.Options{})
	if len(objs) != 1 {
		return nil, diags
	}
	ms, more := convert.ToModel(&objs[0], model.Mesh{})
	return ms, append(diags, more...)
}

func TestCORSPolicies(t *testing.T) {
	exact, any := "https://a.test", "*"
	for text, want := range map[string]*model.CORS{
		"{allowOrigins: [{exact: https://a.test}], allowMethods: [GET], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 1h, allowCredentials: true}": {
			Origins: []model.StringMatch{{Exact: &exact}}, Methods: []string{"GET"}, Headers: []string{"x-a"}, Expose: []string{"x-b"},
			MaxAge: time.Hour, Credentials: true, ForwardUnmatched: true},
		`{allowOrigins: [{exact: "*"}], allowMethods: ["*"], allowHeaders: ["*"], exposeHeaders: ["*"], unmatchedPreflights: IGNORE}`: {
			Origins: []model.StringMatch{{Exact: &any}}, Methods: []string{"*"}, Headers: []string{"*"}, Expose: []string{"*"}},
		`{allowOrigins: [{exact: "*"}], unmatchedPreflights: FORWARD}`: {Origins: []model.StringMatch{{Exact: &any}}, ForwardUnmatched: true},
	} {
		ms, diags := models(withCORS + text + "\n    route: [{destination: {host: a}}]\n")
		if len(diags) != 0 || len(ms) != 1 {
			t.Errorf("%s: %+v", text, diags)
			continue
		}
		if d := cmp.Diff(want, ms[0].(*model.RouteSet).HTTP[0].CORS); d != "" {
			t.Errorf("%s: -want +got\n%s", text, d)
		}
	}
}

func TestCORSPoliciesThatCannotBeMeant(t *testing.T) {
	for text, want := range map[string]string{
		"{allowMethods: [GET]}":                                                      "allowOrigins is missing",
		"{allowOrigins: [{}]}":                                                       "allowOrigins[0]",
		"{allowOrigins: [{regex: '('}]}":                                             "allowOrigins[0].regex",
		"{allowOrigins: [{exact: a}], allowMethods: ['GET PUT']}":                    "allowMethods[0]",
		"{allowOrigins: [{exact: a}], allowHeaders: ['a: b']}":                       "allowHeaders[0]",
		"{allowOrigins: [{exact: a}], exposeHeaders: ['*'], allowCredentials: true}": "exposeHeaders",
		"{allowOrigins: [{exact: a}], maxAge: 1500ms}":                               "maxAge",
		"{allowOrigins: [{exact: a}], maxAge: 0s}":                                   "maxAge",
		"{allowOrigin: [a]}":                                                         "allowOrigins: [{exact",
	} {
		_, diags := models(withCORS + text + "\n    route: [{destination: {host: a}}]\n")
		found := false
		for _, d := range diags {
			found = found || strings.Contains(d.Field+" "+d.Message+" "+d.Hint, want)
		}
		if !found {
			t.Errorf("%s: nothing about %q in %+v", text, want, diags)
		}
	}
}
