package migrate_test

import (
	"context"
	"fmt"
	"net/http"
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
				return fmt.Errorf("its address is %q: %w", address, err)
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
