package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The Gateway API in local mode: the ingress gateway serves a Gateway, routes
// match headers, split by weight and change requests, and a route with a
// Service as its parent leads traffic between services.
func TestTheGatewayAPIWorksWithoutKubernetes(t *testing.T) {
	e := newEnv(t)
	requireNamespaces(t, e)
	m := e.up(e.sample("platform/bookinfo.yaml"), e.sample("platform/sleep.yaml"), e.sample("gateway-api/bookinfo-versions.yaml"), e.sample("gateway-api/bookinfo-gateway.yaml"))
	m.ready("productpage-v1", "reviews-v1", "reviews-v2", "reviews-v3", "details-v1", "ratings-v1", "sleep", "weft-system/istio-ingressgateway")
	m.eventually(patience, "the page through the Gateway", func() (string, bool) {
		code, body, err := m.get("/productpage")
		return fmt.Sprint(code, err, len(body)), code == 200 && strings.Contains(body, "Reviewer1")
	})
	if code, _, err := m.get("/nowhere"); code != 404 {
		t.Errorf("a path that no route has: %d, %v", code, err)
	}
	out := m.must("get", "gateways.gateway.networking.k8s.io", "bookinfo-gateway", "-o", "yaml")
	for _, want := range []string{"type: Programmed", "attachedRoutes: 1", "reason: Programmed"} {
		if !strings.Contains(out, want) {
			t.Errorf("the Gateway's status lacks %q:\n%s", want, out)
		}
	}
	m.applyText(gatewayAPIRoutes)
	shop := func(path string, header ...string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, "http://"+e.ingress+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.example"
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := c.Do(req)
		if err != nil {
			return 0, err.Error(), nil
		}
		defer resp.Body.Close()
		var b strings.Builder
		buf := make([]byte, 64<<10)
		for {
			n, err := resp.Body.Read(buf)
			b.Write(buf[:n])
			if err != nil {
				return resp.StatusCode, b.String(), resp.Header
			}
		}
	}
	m.eventually(patience, "the new routes", func() (string, bool) {
		code, body, h := shop("/stars/0")
		return fmt.Sprint(code, body), code == 200 && h.Get("x-version") == "three" && strings.Contains(body, `"red"`)
	})
	t.Run("a header match goes before the prefix alone", func(t *testing.T) {
		if code, body, h := shop("/stars/0", "end-user", "jason"); code != 200 || h.Get("x-version") != "two" || !strings.Contains(body, `"black"`) {
			t.Errorf("%d %s %v", code, body, h)
		}
	})
	t.Run("weights, the share of a Service that does not exist is 500", func(t *testing.T) {
		count := map[int]int{}
		for range 200 {
			code, _, _ := shop("/split/0")
			count[code]++
		}
		if count[200]+count[500] != 200 || count[200] < 110 || count[200] > 185 {
			t.Errorf("3 of 4 shares exist: %v", count)
		}
	})
	t.Run("a prefix is by path elements", func(t *testing.T) {
		if code, _, _ := shop("/starsandmore"); code != 404 {
			t.Errorf("answer %d", code)
		}
	})
	t.Run("a redirect", func(t *testing.T) {
		code, _, h := shop("/old/page")
		if code != 301 || h.Get("Location") != "https://new.example/new/page" {
			t.Errorf("%d %q", code, h.Get("Location"))
		}
	})
	t.Run("no backend is 500, and the route says why", func(t *testing.T) {
		if code, _, _ := shop("/broken"); code != 500 {
			t.Errorf("answer %d", code)
		}
		if out := m.must("get", "httproute", "shop", "-o", "yaml"); !strings.Contains(out, "reason: BackendNotFound") {
			t.Errorf("status:\n%s", out)
		}
	})
	t.Run("a route of a Service leads what services send it", func(t *testing.T) {
		ask := func(flags ...string) string {
			args := append([]string{"bookinfo", "client"}, flags...)
			return m.exec("sleep", append(args, "http://reviews:9080/reviews/0")...).stdout
		}
		m.must("apply", "--wait", "-f", m.sample("gateway-api/route-reviews-v1.yaml"))
		m.eventually(patience, "v1 only", func() (string, bool) {
			for range 8 {
				if out := ask(); strings.Contains(out, "rating") || !strings.Contains(out, "reviewer") {
					return out, false
				}
			}
			return "", true
		})
		m.applyText(strings.Replace(consumerRoute, "NAMESPACE", "legacy", 1))
		for range 8 {
			if out := ask(); strings.Contains(out, "rating") {
				t.Fatalf("another namespace's consumer route holds for the pod: %s", out)
			}
		}
		m.applyText("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: reviews}\nspec: {parentRefs: [{group: '', kind: Service, name: reviews}], rules: [{backendRefs: [{name: reviews-v3, port: 9080}]}]}\n")
		m.eventually(patience, "v3 only", func() (string, bool) {
			for range 8 {
				if out := ask(); !strings.Contains(out, `"red"`) {
					return out, false
				}
			}
			return "", true
		})
		// The address that is called decides, whatever host the request names: that of reviews has the route, that of details has not.
		if out := ask("-H", "Host: details"); !strings.Contains(out, `"red"`) {
			t.Errorf("the address of reviews with another host: %s", out)
		}
		if r := m.exec("sleep", "bookinfo", "client", "-H", "Host: reviews", "http://details:9080/details/0"); !strings.Contains(r.stdout, "publisher") {
			t.Errorf("the address of details with the host of reviews: %s%s", r.stdout, r.stderr)
		}
		m.must("delete", "httproute", "reviews")
		m.eventually(patience, "all versions again", func() (string, bool) {
			seen := map[bool]bool{}
			for range 16 {
				seen[strings.Contains(ask(), "rating")] = true
			}
			return fmt.Sprint(seen), len(seen) == 2
		})
	})
}

const consumerRoute = `apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews-consumer, namespace: legacy}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, namespace: default}]
  rules:
  - backendRefs: [{group: networking.istio.io, kind: Hostname, name: reviews-v3.default.svc.cluster.local, port: 9080}]
`

const gatewayAPIRoutes = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: bookinfo-gateway}]
  hostnames: [shop.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /stars}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /reviews}}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-version, value: three}]}}
    backendRefs: [{name: reviews-v3, port: 9080}]
  - matches: [{path: {type: PathPrefix, value: /stars}, headers: [{name: end-user, value: jason}]}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /reviews}}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-version, value: two}]}}
    backendRefs: [{name: reviews-v2, port: 9080}]
  - matches: [{path: {type: PathPrefix, value: /split}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /details}}}]
    backendRefs: [{name: details, port: 9080, weight: 3}, {name: nobody, port: 9080, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
  - matches: [{path: {type: PathPrefix, value: /broken}}]
    backendRefs: [{name: nobody, port: 80}]
`
