package snapshot

import (
	"testing"
	"time"

	"weft.mesh/weft/model"
)

// The values that Gateway API objects make follow rules of their own.
func TestGatewayAPIValues(t *testing.T) {
	aged := func(kind model.Kind, ns, name string, age int) model.Meta {
		m := meta(kind, ns, name)
		m.Created = time.Unix(int64(100-age), 0)
		return m
	}
	const host = "echo.shop.svc.cluster.local"
	tls := &model.ClientTLS{Mode: model.TLSSimple, VerifyHost: "a.example"}
	byPort := &model.ClientTLS{Mode: model.TLSSimple, VerifyHost: "b.example"}
	w := world(
		&model.RouteSet{Meta: aged(model.KindVirtualService, "shop", "producer", 9), Hosts: []string{host}, Gateways: []string{GatewayMesh}},
		&model.RouteSet{Meta: aged(model.KindVirtualService, "web", "consumer", 1), Hosts: []string{host}, Gateways: []string{GatewayMesh}, ExportTo: []string{"."}, Consumer: true},
		&model.Gateway{Meta: aged(model.KindGateway, "edge", "gw~http", 0), Selector: map[string]string{"a": "b"}, OwnNamespace: true},
		&model.Gateway{Meta: aged(model.KindGateway, "edge", "hand~http", 0), Selector: map[string]string{"c": "d"}, WorkloadNamespace: "hand"},
		&model.DestinationRule{Meta: aged(model.KindDestinationRule, "shop", "echo~tls", 0), Host: host, Backend: true,
			Policy: model.TrafficPolicy{TLS: tls, Ports: map[uint16]model.TrafficPolicy{443: {TLS: byPort}}}},
	)
	for client, want := range map[string]string{"web": "consumer", "shop": "producer", "other": "producer"} {
		if got := w.Routes(client, host); got == nil || got.Name != want {
			t.Errorf("clients of %s use %v, want %s", client, got, want)
		}
	}
	if got := w.Gateways("edge", map[string]string{"a": "b"}); len(got) != 1 {
		t.Errorf("pods of the gateway's namespace have %d gateways, want 1", len(got))
	}
	if got := w.Gateways("other", map[string]string{"a": "b"}); len(got) != 0 {
		t.Errorf("pods of another namespace have %d gateways, want none", len(got))
	}
	if got := w.Gateways("hand", map[string]string{"c": "d"}); len(got) != 1 {
		t.Errorf("pods of the namespace of a Service deployed by hand have %d gateways, want 1", len(got))
	}
	if got := w.Gateways("other", map[string]string{"c": "d"}); len(got) != 0 {
		t.Errorf("pods elsewhere with the labels of a gateway deployed by hand have %d gateways, want none", len(got))
	}
	k := ServiceKey{host, "shop"}
	if got := w.BackendTLS(k, 80); got != tls {
		t.Errorf("BackendTLS of port 80 = %v", got)
	}
	if got := w.BackendTLS(k, 443); got != byPort {
		t.Errorf("BackendTLS of port 443 = %v", got)
	}
	if got := w.BackendTLS(ServiceKey{"other", "shop"}, 80); got != nil {
		t.Errorf("BackendTLS of another service = %v", got)
	}
	if got := w.Rule("web", nil, k); got != nil {
		t.Errorf("sidecars follow %v, want no rule", got)
	}
}
