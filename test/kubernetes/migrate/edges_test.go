package migrate_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// edges are how requests come to shop from outside before the migration: a Gateway of Istio's API with the profile's ingress gateway,
// and one of the Gateway API.
const edges = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door, namespace: shop}
spec:
  hosts: [shop.example]
  gateways: [door]
  http: [{headers: {response: {set: {x-door: istio-api}}}, route: [{destination: {host: web}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: edge}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: edge}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: web, port: 80}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-door, value: gateway-api}]}}]}]
`

func (w *walk) openEdges(t *testing.T) {
	t.Helper()
	w.Namespace(t, "edge")
	w.Apply(t, "", edges)
	w.doorsOpen(t, map[string]string{"istio-system/istio-ingressgateway": "istio-api", "edge/edge-istio": "gateway-api"})
}

// doorsOpen asks gateways' Services, by namespace and name, for shop's page, and which door was it that they came through.
func (w *walk) doorsOpen(t *testing.T, doors map[string]string) {
	t.Helper()
	for service, want := range doors {
		ns, name, _ := strings.Cut(service, "/")
		w.Eventually(t, 2*time.Minute, "shop's page through "+service, func(ctx context.Context) error {
			address, err := w.Try(ctx, "", "-n", ns, "get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
			if err != nil || address == "" {
				return fmt.Errorf("its address is %q: %v", address, err)
			}
			resp, err := get(ctx, address)
			if err != nil {
				return err
			}
			if got := resp.Header.Get("X-Door"); resp.StatusCode != http.StatusOK || got != want {
				return fmt.Errorf("%s, through %q, want %q", resp.Status, got, want)
			}
			return nil
		})
	}
}

// moved are the same doors a second time, as step 4 says: of Weft's gateways, with the routes attached to both.
const moved = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door-weft, namespace: shop}
spec:
  selector: {istio: weft-ingress}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door, namespace: shop}
spec:
  hosts: [shop.example]
  gateways: [door, door-weft]
  http: [{headers: {response: {set: {x-door: istio-api}}}, route: [{destination: {host: web}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: next, namespace: edge}
spec:
  gatewayClassName: weft
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: edge}, {name: next, namespace: edge}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: web, port: 80}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-door, value: gateway-api}]}}]}]
`

// moveEdges is step 4: afterwards shop is reached through the gateways of both.
func (w *walk) moveEdges(t *testing.T) {
	t.Helper()
	w.do(t, "4", "weft upgrade")
	w.Apply(t, "", moved)
	w.doorsOpen(t, map[string]string{"istio-system/istio-ingressgateway": "istio-api", "edge/edge-istio": "gateway-api",
		"weft-system/weft-ingress": "istio-api", "edge/next-weft": "gateway-api"})
	// Each control plane says of the route what it is at its own gateway, and nothing of the other's.
	w.Eventually(t, time.Minute, "both control planes write the route's status", func(ctx context.Context) error {
		got, err := w.Try(ctx, "", "-n", "shop", "get", "httproute", "web", "-o",
			`jsonpath={range .status.parents[*]}{.parentRef.name} {.controllerName} {.conditions[?(@.type=="Accepted")].status}{"\n"}{end}`)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(got), "\n")
		slices.Sort(lines)
		if want := []string{"edge istio.io/gateway-controller True", "next weft.mesh/gateway-controller True"}; !slices.Equal(lines, want) {
			return fmt.Errorf("%q, want %q", lines, want)
		}
		return nil
	})
}

// removeIstio is step 5, with nothing left that is Istio's but its control plane and its ingress gateway.
func (w *walk) removeIstio(t *testing.T) {
	t.Helper()
	w.Kubectl(t, "-n", "edge", "delete", "gateways.gateway.networking.k8s.io", "edge", "--wait=true")
	w.Eventually(t, 2*time.Minute, "the pods of Istio's gateway end", func(ctx context.Context) error {
		out, err := w.Try(ctx, "", "-n", "edge", "get", "pods", "-l", "gateway.networking.k8s.io/gateway-name=edge", "-o", "name")
		if err != nil || out != "" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.do(t, "5", "istioctl uninstall")
	w.flows(t, "Istio is gone")
	w.doorsOpen(t, map[string]string{"weft-system/weft-ingress": "istio-api", "edge/next-weft": "gateway-api"})
	for _, kind := range []string{"virtualservices", "authorizationpolicies", "peerauthentications"} {
		if out := w.Kubectl(t, "-n", "office", "get", kind, "-o", "name"); out == "" {
			t.Errorf("the %s of office went with Istio", kind)
		}
	}
	if out := w.Kubectl(t, "get", "mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles", "-o", "name"); strings.Contains(out, "istio") {
		t.Errorf("of Istio is left: %s", out)
	}
	// What said istio-injection=enabled all the time is Weft's now, and what is refused to strangers still is.
	w.Namespace(t, "later", "istio-injection=enabled")
	w.Apply(t, "later", configuration("office")+"---"+strings.ReplaceAll(programs, "OTHER", "office"))
	w.belongs(t, "later", "weft")
	w.Eventually(t, time.Minute, "office refuses the client of later", func(ctx context.Context) error {
		r, err := w.result(ctx, "later")
		if err != nil {
			return err
		}
		for why := range r.Bad {
			if strings.Contains(why, "403") {
				return nil
			}
		}
		return fmt.Errorf("no 403: %s", r)
	})
}
