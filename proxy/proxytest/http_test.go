package proxytest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/xds"
)

func TestARequestGoesOverMutualTLSWithBothIdentitiesInMetricsAndLogs(t *testing.T) {
	for _, proto := range []struct{ name, config, wire string }{{"HTTP/1.1", protoHTTP1, "HTTP/1.1"}, {"HTTP/2 between the sidecars", protoHTTP2, "HTTP/2.0"}} {
		t.Run(proto.name, func(t *testing.T) {
			app := StartApp(t, "app")
			p := startPair(t, pairOptions{app: app.Port, protocol: proto.config})
			status, h, body := Call(t, "GET", p.port, "/hello?x=1", "host", "api.default")
			if status != 200 || body != "app GET /hello?x=1 " || h.Get("x-app") != "app" {
				t.Fatalf("%d %v %q", status, h, body)
			}
			r := app.Last()
			if got := r.Header.Get("x-forwarded-client-cert"); !strings.Contains(got, "URI="+SPIFFE("web")) || !strings.Contains(got, "By="+SPIFFE("api")) {
				t.Errorf("x-forwarded-client-cert = %q", got)
			}
			if r.Proto != proto.wire || r.Host != "api.default" || r.Header.Get("x-request-id") == "" {
				t.Errorf("the application saw %s, host %q, x-request-id %q", r.Proto, r.Host, r.Header.Get("x-request-id"))
			}
			for name := range r.Header {
				if strings.HasPrefix(strings.ToLower(name), "x-envoy-peer-metadata") {
					t.Errorf("header %s reached the application", name)
				}
			}
			p.caller.WaitStat("istio_requests_total{")
			p.callee.WaitStat("istio_requests_total{")
			for side, want := range map[*Proxy][]string{
				p.caller: {`reporter="source"`, `source_workload="web"`, `destination_workload="api"`, `destination_version="v1"`, `destination_service="api.default.svc.cluster.local"`, `response_code="200"`},
				p.callee: {`reporter="destination"`, `source_workload="web"`, `source_principal="` + SPIFFE("web") + `"`, `destination_principal="` + SPIFFE("api") + `"`, `connection_security_policy="mutual_tls"`},
			} {
				line := metric(side.Get("/stats/prometheus"), "istio_requests_total")
				for _, w := range want {
					if !strings.Contains(line, w) {
						t.Errorf("metric lacks %s:\n%s", w, line)
					}
				}
			}
			log := filepath.Join(p.callee.StateDir(), "access.log")
			Until(t, "the access log", func() bool { b, _ := os.ReadFile(log); return strings.Contains(string(b), `"GET /hello?x=1 HTTP/`) })
		})
	}
}

// Of the requests on a connection only the first introduces the two sidecars to each other.
func TestEveryRequestCountsForThoseWhoMetWithTheFirst(t *testing.T) {
	for name, config := range map[string]string{"HTTP/1.1": protoHTTP1, "HTTP/2 between the sidecars": protoHTTP2} {
		t.Run(name, func(t *testing.T) {
			app := StartApp(t, "app")
			p := startPair(t, pairOptions{app: app.Port, protocol: config})
			const requests = 20
			for range requests {
				if status, _, _ := Call(t, "GET", p.port, "/", "host", "api.default"); status != 200 {
					t.Fatalf("status %d, want 200", status)
				}
			}
			for side, peer := range map[*Proxy]string{p.caller: `destination_workload="api"`, p.callee: `source_workload="web"`} {
				Until(t, "all requests in one series with "+peer, func() bool {
					line := metric(side.Get("/stats/prometheus"), "istio_requests_total")
					return strings.Contains(line, peer) && strings.HasSuffix(strings.TrimSpace(line), fmt.Sprintf("} %d", requests))
				})
			}
		})
	}
}

// metric is the first sample of a name.
func metric(text, name string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+"{") {
			return line
		}
	}
	return ""
}

func TestStrictShutsOutPlaintextAndPermissiveDoesNot(t *testing.T) {
	app := StartApp(t, "app")
	for _, strict := range []bool{true, false} {
		p := startPair(t, pairOptions{app: app.Port, strict: strict})
		status, _, _, err := TryCall("GET", p.vars["In"].(int), "/")
		if strict && err == nil {
			t.Errorf("strict: plaintext was answered with %d", status)
		}
		if !strict && (err != nil || status != 200) {
			t.Errorf("permissive: %d, %v", status, err)
		}
		if status, _, _ := Call(t, "GET", p.port, "/"); status != 200 {
			t.Errorf("strict %v: over mTLS: %d", strict, status)
		}
	}
}

func TestACalleeWithAnotherIdentityIsNotTalkedTo(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port, peer: SPIFFE("somebody-else")})
	status, _, body := Call(t, "GET", p.port, "/")
	if status != 503 || app.Count() != 0 {
		t.Errorf("%d %q; the application saw %d requests", status, body, app.Count())
	}
}

const allowWebGET = `- name: envoy.filters.http.rbac
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
          rules:
            action: ALLOW
            policies:
              "ns[default]-policy[web]-rule[0]":
                permissions: [{and_rules: {rules: [{or_rules: {rules: [{header: {name: ':method', string_match: {exact: GET}}}]}}]}}]
                principals: [{and_ids: {ids: [{or_ids: {ids: [{authenticated: {principal_name: {exact: 'spiffe://cluster.local/ns/default/sa/%s'}}}]}}]}}]`

func TestAuthorizationIsByProvenIdentityAndMethod(t *testing.T) {
	app := StartApp(t, "app")
	allowed := startPair(t, pairOptions{app: app.Port, rbac: fmt.Sprintf(allowWebGET, "web")})
	if status, _, _ := Call(t, "GET", allowed.port, "/"); status != 200 {
		t.Errorf("GET as web: %d", status)
	}
	if status, _, body := Call(t, "POST", allowed.port, "/"); status != 403 || body != "RBAC: access denied" {
		t.Errorf("POST as web: %d %q", status, body)
	}
	if status, _, _ := Call(t, "GET", allowed.vars["In"].(int), "/"); status != 403 {
		t.Errorf("GET without an identity: %d", status)
	}
	denied := startPair(t, pairOptions{app: app.Port, rbac: fmt.Sprintf(allowWebGET, "other")})
	if status, _, _ := Call(t, "GET", denied.port, "/"); status != 403 {
		t.Errorf("GET as web where only other may: %d", status)
	}
}

func routes(list string) string {
	return `
'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: '80'
virtual_hosts: [{name: api, domains: ['*'], routes: [` + list + `]}]
`
}

const toAPI = `cluster: 'outbound|80||api.default.svc.cluster.local'`

func TestRoutesDoWhatTheySay(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	p.caller.Push(routes(`
  {match: {path: /teapot}, direct_response: {status: 418, body: {inline_string: short}}},
  {match: {prefix: /old}, redirect: {path_redirect: /new, response_code: FOUND}},
  {match: {prefix: /v1/}, route: {` + toAPI + `, prefix_rewrite: /, timeout: 1s}, request_headers_to_add: [{header: {key: x-added, value: 'by %PROTOCOL%'}}], response_headers_to_remove: [x-app]},
  {match: {prefix: /slow}, route: {` + toAPI + `, timeout: 0.1s}},
  {match: {prefix: /abort}, route: {` + toAPI + `}, typed_per_filter_config: {envoy.filters.http.fault: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 555, percentage: {numerator: 100}}}}},
  {match: {prefix: /delay}, route: {` + toAPI + `}, typed_per_filter_config: {envoy.filters.http.fault: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, delay: {fixed_delay: 0.2s, percentage: {numerator: 100}}}}},
  {match: {prefix: /, headers: [{name: end-user, string_match: {exact: jason}}]}, direct_response: {status: 299}},
  {match: {prefix: /}, route: {` + toAPI + `}}`))
	Until(t, "the new routes", func() bool { s, _, _, _ := TryCall("GET", p.port, "/teapot"); return s == 418 })
	if s, _, body := Call(t, "GET", p.port, "/teapot"); s != 418 || body != "short" {
		t.Errorf("direct response: %d %q", s, body)
	}
	if s, h, _ := Call(t, "GET", p.port, "/old/x", "host", "api"); s != 302 || h.Get("location") != "http://api/new" {
		t.Errorf("redirect: %d %q", s, h.Get("location"))
	}
	if s, h, body := Call(t, "GET", p.port, "/v1/a"); s != 200 || body != "app GET /a " || h.Get("x-app") != "" || app.Last().Header.Get("x-added") != "by HTTP/1.1" {
		t.Errorf("rewrite: %d %q, x-app %q, x-added %q", s, body, h.Get("x-app"), app.Last().Header.Get("x-added"))
	}
	if s, _, _ := Call(t, "GET", p.port, "/", "end-user", "jason"); s != 299 {
		t.Errorf("header match: %d", s)
	}
	if s, _, body := Call(t, "GET", p.port, "/abort"); s != 555 || body != "fault filter abort" {
		t.Errorf("abort: %d %q", s, body)
	}
	began := time.Now()
	if s, _, _ := Call(t, "GET", p.port, "/delay"); s != 200 || time.Since(began) < 200*time.Millisecond {
		t.Errorf("delay: %d after %v", s, time.Since(began))
	}
	release := make(chan struct{})
	app.Handle(func(http.ResponseWriter, *http.Request) { <-release })
	if s, _, body := Call(t, "GET", p.port, "/slow"); s != 504 || body != "upstream request timeout" {
		t.Errorf("time-out: %d %q", s, body)
	}
	close(release)
}

func TestRetriesHideAFailingApplicationAndAreCountedInTheHeader(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	p.caller.Push(strings.Replace(routes(`{match: {prefix: /}, route: {`+toAPI+`, retry_policy: {retry_on: 'retriable-status-codes', retriable_status_codes: [503], num_retries: 3, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}}}`),
		"name: api, domains", "name: api, include_request_attempt_count: true, domains", 1))
	var n atomic.Int64
	var attempts sync.Map
	app.Handle(func(w http.ResponseWriter, r *http.Request) {
		k := n.Add(1)
		attempts.Store(k, r.Header.Get("x-envoy-attempt-count"))
		if k < 3 {
			w.WriteHeader(503)
		}
	})
	Until(t, "the retry policy", func() bool {
		n.Store(0)
		s, _, _, err := TryCall("GET", p.port, "/")
		return err == nil && s == 200 && n.Load() == 3
	})
	if got, _ := attempts.Load(int64(3)); got != "3" {
		t.Errorf("x-envoy-attempt-count of the third try = %v", got)
	}
}

func TestAMirrorGetsACopyAndItsAnswerCountsForNothing(t *testing.T) {
	app, shadow := StartApp(t, "app"), StartApp(t, "shadow")
	shadow.Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	p := startPair(t, pairOptions{app: app.Port})
	p.caller.Push(fmt.Sprintf(`
'@type': %s
name: shadow
type: STATIC
connect_timeout: 20s
load_assignment: {cluster_name: shadow, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
`, xds.ClusterType, shadow.Port) + "---" + routes(`{match: {prefix: /}, route: {`+toAPI+`, request_mirror_policies: [{cluster: shadow, disable_shadow_host_suffix_append: true}]}}`))
	Until(t, "a mirrored request", func() bool {
		if s, _, _ := Call(t, "GET", p.port, "/m", "host", "api"); s != 200 {
			t.Fatalf("status %d", s)
		}
		return shadow.Count() > 0
	})
	if r := shadow.Last(); r.URL.Path != "/m" || r.Host != "api" {
		t.Errorf("mirrored request: %s, host %q", r.URL, r.Host)
	}
}

func TestWeightsShareTraffic(t *testing.T) {
	one, two := StartApp(t, "one"), StartApp(t, "two")
	p := startPair(t, pairOptions{app: one.Port})
	p.caller.Push(fmt.Sprintf(`
'@type': %s
name: two
type: STATIC
connect_timeout: 20s
load_assignment: {cluster_name: two, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
`, xds.ClusterType, two.Port) + "---" + routes(`{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: 'outbound|80||api.default.svc.cluster.local', weight: 80}, {name: two, weight: 20}]}}}`))
	Until(t, "the weighted route", func() bool { Call(t, "GET", p.port, "/"); return two.Count() > 0 })
	before := two.Count()
	const n = 200
	for range n {
		Call(t, "GET", p.port, "/")
	}
	if got := two.Count() - before; got < 15 || got > 75 { // 40 expected; 5 standard deviations of 5.7
		t.Errorf("%d of %d requests with weight 20 of 100", got, n)
	}
}
