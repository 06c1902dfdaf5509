package compile

import (
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// compileHCM compiles a connection manager with nothing but what change sets.
func compileHCM(t *testing.T, change func(*hcmv3.HttpConnectionManager)) (*config.HTTPManager, error) {
	t.Helper()
	router, err := anypb.New(&routerv3.Router{})
	if err != nil {
		t.Fatal(err)
	}
	x := &hcmv3.HttpConnectionManager{
		StatPrefix:     "x",
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}}},
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}, RouteConfigName: "r"}},
	}
	change(x)
	a, err := anypb.New(x)
	if err != nil {
		t.Fatal(err)
	}
	m, _, _, err := New(Settings{}).httpManager(a, stream.Inbound)
	return m, err
}

// TestAHeadHasABoundUnlessItIsTakenAway: a configuration that says nothing must not leave clients that send a byte now and then alone.
func TestAHeadHasABoundUnlessItIsTakenAway(t *testing.T) {
	for name, tc := range map[string]struct {
		set  *durationpb.Duration
		want time.Duration
	}{"nothing said": {nil, time.Minute}, "none": {durationpb.New(0), 0}, "ten seconds": {durationpb.New(10 * time.Second), 10 * time.Second}} {
		m, err := compileHCM(t, func(x *hcmv3.HttpConnectionManager) { x.RequestHeadersTimeout = tc.set })
		if err != nil || m.RequestHeadersTimeout != tc.want {
			t.Errorf("%s: %v, %v; want %v", name, m.RequestHeadersTimeout, err, tc.want)
		}
	}
}

func TestUpgradeTypes(t *testing.T) {
	for name, tc := range map[string]struct {
		types []string
		want  []string
		bad   bool
	}{
		"any protocol":     {types: []string{"websocket", "SPDY/3.1", "CONNECT", "websocket"}, want: []string{"websocket", "spdy/3.1", "connect"}},
		"h2c":              {types: []string{"h2c"}, bad: true},
		"none":             {types: []string{""}, bad: true},
		"no protocol":      {types: []string{"web socket"}, bad: true},
		"a list":           {types: []string{"a, b"}, bad: true},
		"too many slashes": {types: []string{"a/b/c"}, bad: true},
	} {
		m, err := compileHCM(t, func(x *hcmv3.HttpConnectionManager) {
			for _, u := range tc.types {
				x.UpgradeConfigs = append(x.UpgradeConfigs, &hcmv3.HttpConnectionManager_UpgradeConfig{UpgradeType: u})
			}
		})
		if (err != nil) != tc.bad || err == nil && !slices.Equal(m.Upgrades, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, err := compileHCM(t, func(x *hcmv3.HttpConnectionManager) {
		x.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket", Enabled: wrapperspb.Bool(false)}}
	})
	if err != nil || len(m.Upgrades) != 0 {
		t.Errorf("one that is not enabled: %v, %v", m.Upgrades, err)
	}
}
