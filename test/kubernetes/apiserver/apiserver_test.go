package apiserver

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/testbed"
)

func TestAServerServesTheKindsOfTheMesh(t *testing.T) {
	start := time.Now()
	s := Start(t)
	t.Logf("ready with all definitions after %.1f s", time.Since(start).Seconds())
	for _, path := range []string{
		"/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices",
		"/apis/networking.istio.io/v1/virtualservices", "/apis/networking.istio.io/v1beta1/destinationrules", "/apis/security.istio.io/v1/peerauthentications",
		"/apis/gateway.networking.k8s.io/v1/httproutes", "/apis/gateway.networking.k8s.io/v1/gateways",
	} {
		var list struct{ Kind string }
		if err := s.Client.Do(t.Context(), http.MethodGet, path, "", nil, &list); err != nil {
			t.Error(err)
		} else if !strings.HasSuffix(list.Kind, "List") {
			t.Errorf("%s: kind %q", path, list.Kind)
		}
	}
	// It is a real one: it refuses what a definition's schema does not have.
	bad := `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a, namespace: default}, spec: {http: "no"}}`
	err := s.Client.Do(t.Context(), http.MethodPost, "/apis/networking.istio.io/v1/namespaces/default/virtualservices", "application/yaml", []byte(bad), nil)
	var status *testbed.StatusError
	if !errors.As(err, &status) || status.Code != http.StatusUnprocessableEntity {
		t.Errorf("a list that is a word: %v, want 422", err)
	}
}
