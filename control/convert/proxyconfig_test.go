package convert

import (
	"strings"
	"testing"

	"weft.mesh/weft/model"
)

// A pod's annotation may say more than what is the control plane's; that much must not be lost for it.
func TestPodTopology(t *testing.T) {
	for _, tt := range []struct {
		text    string
		want    model.Topology
		refused string
	}{
		{"gatewayTopology: {numTrustedProxies: 2}\nconcurrency: 4\nholdApplicationUntilProxyStarts: true", model.Topology{TrustedProxies: 2}, ""},
		{"concurrency: 4", model.Topology{}, ""},
		{"", model.Topology{}, ""},
		{"gatewayTopology: {numTrustedProxies: many}", model.Topology{}, "no ProxyConfig"},
		{"[]", model.Topology{}, "no ProxyConfig"},
		{"{", model.Topology{}, "no YAML"},
	} {
		got, err := podTopology(tt.text)
		if got != tt.want || (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%q: %+v, %v", tt.text, got, err)
		}
	}
}
