package analyze_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

func decode(t testing.TB, text string) []convert.Object {
	t.Helper()
	objs, diags := convert.Decode(admin.File{Name: "in.yaml", Content: text}, convert.Options{})
	if convert.HasErrors(diags) {
		t.Fatalf("decode: %+v", diags)
	}
	return objs
}

// brief writes diagnostics as "severity code object field".
func brief(ds []admin.Diagnostic) []string {
	var out []string
	for _, d := range ds {
		out = append(out, fmt.Sprintf("%s %s %s %s", d.Severity, d.Code, d.Object, d.Field))
	}
	return out
}

func want(t *testing.T, got []admin.Diagnostic, lines ...string) {
	t.Helper()
	if d := cmp.Diff(lines, brief(got)); d != "" {
		t.Errorf("diagnostics (-want +got):\n%s", d)
		for _, g := range got {
			t.Logf("%+v", g)
		}
	}
}

const (
	service = `apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{port: 80, name: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec: {containers: [{name: app, command: [x]}]}
---
`
	rule = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
`
	route = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}
---
`
)

func TestAChangeThatBreaksAnotherObjectIsAnError(t *testing.T) {
	mesh := decode(t, service+rule+route)
	changed := decode(t, strings.ReplaceAll(rule, "name: v1,", "name: v2,"))
	want(t, analyze.Check(mesh, changed, nil, analyze.Options{}),
		"error unknown-subset VirtualService default/reviews spec.http[0].route[0].destination.subset")
}

func TestADeletionThatBreaksAnotherObjectIsAWarning(t *testing.T) {
	mesh := decode(t, service+rule+route)
	gone := []model.Key{{Kind: model.KindDestinationRule, Namespace: "default", Name: "reviews"}}
	want(t, analyze.Check(mesh, nil, gone, analyze.Options{}),
		"warning unknown-subset VirtualService default/reviews spec.http[0].route[0].destination.subset")
}

func TestWhatWasWrongBeforeDoesNotBlockOtherChanges(t *testing.T) {
	mesh := decode(t, service+route) // the subset is missing already
	changed := decode(t, strings.ReplaceAll(service, "reviews", "ratings"))
	want(t, analyze.Check(mesh, changed, nil, analyze.Options{}))
}

func TestObjectsOfOneChangeSeeEachOther(t *testing.T) {
	want(t, analyze.Check(nil, decode(t, route+rule+service), nil, analyze.Options{}))
}

func TestStoredObjectsAreJudgedLikeWrittenOnes(t *testing.T) {
	text := `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {outlierDetection: {maxEjectionPercent: 0}, connectionPool: {http: {h2UpgradePolicy: DEFAULT}}, retryBudget: {minRetryConcurrency: 0}}}
`
	written := decode(t, text)[0]
	stored, diags := convert.DecodeStored(written.Raw, convert.SourceStore, convert.Options{})
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	a, _ := convert.ToModel(&written, model.Mesh{})
	b, _ := convert.ToModel(&stored, model.Mesh{})
	x, y := a[0].(*model.DestinationRule), b[0].(*model.DestinationRule)
	if d := cmp.Diff(x.Policy, y.Policy); d != "" {
		t.Errorf("the stored object means something else:\n%s", d)
	}
	if x.Policy.Outlier.MaxEjectionPercent != 0 || x.Policy.RetryBudget.Min != 0 || x.Policy.Pool.H2Upgrade != "DEFAULT" {
		t.Errorf("a written zero was taken for a default: %+v", x.Policy)
	}
}

func TestOneVirtualServiceOfAMeshHostWinsAndTheOtherIsNamed(t *testing.T) {
	first, second := decode(t, service+rule+route), decode(t, strings.Replace(route, "name: reviews}", "name: a-newer}", 1))
	for i := range first {
		first[i].Meta.Created = time.Unix(1, 0)
	}
	got := analyze.Check(first, second, nil, analyze.Options{})
	want(t, got, "warning host-conflict VirtualService default/a-newer spec.hosts[0]")
	if !strings.Contains(got[0].Message, "VirtualService default/reviews") {
		t.Errorf("the winner is not named: %s", got[0].Message)
	}
}

func TestRules(t *testing.T) {
	vs := func(routes string) string {
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  hosts: [reviews]\n  http:\n" + routes
	}
	to := "\n    route: [{destination: {host: reviews}}]\n"
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"a sum of weights other than 100 is explained", vs("  - route: [{destination: {host: reviews, subset: v1}, weight: 30}, {destination: {host: reviews}, weight: 30}]\n"),
			[]string{"warning weight-sum VirtualService default/x spec.http[0].route"}},
		{"a match that an earlier match of its route takes is named", vs("  - match: [{uri: {prefix: /a}}, {uri: {exact: /a/b}}]" + to),
			[]string{"warning shadowed-match VirtualService default/x spec.http[0].match[1]"}},
		{"a stricter match first is fine", vs("  - match: [{uri: {exact: /a/b}}]" + to + "  - match: [{uri: {prefix: /a}}]" + to + "  -" + strings.TrimPrefix(to, "\n   ")), nil},
		{"another header value is another match", vs("  - match: [{headers: {u: {exact: a}}}]" + to + "  - match: [{headers: {u: {exact: b}}}]" + to), nil},
		{"the presence of a header covers its values", vs("  - match: [{headers: {U: {}}}]" + to + "  - match: [{headers: {u: {exact: b}}}]" + to),
			[]string{"error unreachable-route VirtualService default/x spec.http[1]"}},
		{"the absence of a header is no condition on its presence", vs("  - match: [{withoutHeaders: {u: {}}}]" + to + "  - match: [{headers: {u: {exact: b}}}]" + to), nil},
		{"a case-insensitive match covers its letter cases", vs("  - match: [{uri: {prefix: /A}, ignoreUriCase: true}]" + to + "  - match: [{uri: {exact: /a/b}}]" + to),
			[]string{"error unreachable-route VirtualService default/x spec.http[1]"}},
		{"a match on source labels is narrower", vs("  - match: [{sourceLabels: {app: a}}]" + to + "  - match: [{sourceLabels: {app: a, v: b}}]" + to),
			[]string{"error unreachable-route VirtualService default/x spec.http[1]"}},
		{"a timeout below the time of all attempts is pointed out", vs("  - timeout: 1s\n    retries: {attempts: 3, perTryTimeout: 500ms}" + to),
			[]string{"warning timeout-cuts-retries VirtualService default/x spec.http[0].timeout"}},
		{"retries of a route with faults are pointed out", vs("  - fault: {abort: {httpStatus: 500}}\n    retries: {attempts: 3}" + to),
			[]string{"warning fault-disables-retries VirtualService default/x spec.http[0].retries"}},
		{"a host without a service is pointed out", strings.Replace(vs("  -"+strings.TrimPrefix(to, "\n   ")), "[reviews]", "[nobody]", 1),
			[]string{"warning host-without-service VirtualService default/x spec.hosts[0]"}},
		{"a policy that selects nothing is pointed out", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {selector: {matchLabels: {app: none}}, rules: [{}]}\n",
			[]string{"warning selector-matches-nothing AuthorizationPolicy default/x spec.selector.matchLabels"}},
		{"a PROXY header before mutual TLS is pointed out", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: x, namespace: istio-system}\nspec: {host: reviews.default.svc.cluster.local, trafficPolicy: {proxyProtocol: {version: V1}}}\n",
			[]string{"warning mtls-conflict DestinationRule istio-system/x spec.trafficPolicy.proxyProtocol"}},
		{"a PROXY header before plaintext is fine", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: x, namespace: istio-system}\nspec: {host: reviews.default.svc.cluster.local, trafficPolicy: {proxyProtocol: {version: V1}, tls: {mode: DISABLE}}}\n", nil},
		{"a principal that nobody has is pointed out", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/nobody, cluster.local/ns/default/sa/default]}}]}]}\n",
			[]string{"warning unknown-principal AuthorizationPolicy default/x spec.rules[0].from[0].source.principals[0]"}},
		{"a DENY by host alone is pointed out", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {action: DENY, rules: [{to: [{operation: {hosts: [api]}}]}]}\n",
			[]string{"warning host-without-port AuthorizationPolicy default/x spec.rules[0].to[0].operation.hosts[0]"}},
		{"a DENY policy without rules is pointed out", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {action: DENY}\n",
			[]string{"warning policy-without-rules AuthorizationPolicy default/x spec.rules"}},
		{"the empty ALLOW policy is the usual way to deny by default", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {}\n", nil},
		{"HTTP rules for a TCP service are pointed out", `apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 5432, name: tcp-db}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db}
spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: app, command: [x]}]}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: x}
spec: {selector: {matchLabels: {app: db}}, rules: [{to: [{operation: {methods: [GET]}}]}]}
`, []string{"warning http-rule-on-tcp AuthorizationPolicy default/x spec.rules[0].to[0].operation.methods"}},
		{"a subset without pods is pointed out", strings.Replace(rule, "version: v1", "version: v7", 1) + "---\n" + vs("  -"+strings.TrimPrefix(to, "\n   ")),
			[]string{"warning subset-matches-nothing DestinationRule default/reviews spec.subsets[0].labels"}},
		{"an undeclared namespace is pointed out", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: other}\n",
			[]string{"warning missing-namespace ServiceAccount other/a metadata.namespace"}},
		{"a service that is not exported is no target", `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hidden, namespace: weft-system}
spec: {hosts: [hidden.example.com], exportTo: ["."], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
` + strings.Replace(vs("  -"+strings.TrimPrefix(to, "\n   ")), "{host: reviews}", "{host: hidden.example.com}", 1),
			[]string{"error unknown-host VirtualService default/x spec.http[0].route[0].destination.host"}},
		{"a destination with several ports needs one", `apiVersion: v1
kind: Service
metadata: {name: many}
spec: {selector: {app: reviews}, ports: [{port: 81, name: http-a}, {port: 82, name: http-b}]}
---
` + strings.Replace(vs("  -"+strings.TrimPrefix(to, "\n   ")), "{host: reviews}", "{host: many}", 1),
			[]string{"error ambiguous-port VirtualService default/x spec.http[0].route[0].destination"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want(t, analyze.Check(decode(t, service+rule), decode(t, c.in), nil, analyze.Options{}), c.want...)
		})
	}
}
