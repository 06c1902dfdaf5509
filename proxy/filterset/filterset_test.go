package filterset

import (
	"strings"
	"testing"

	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/telemetry"
)

func deps() Deps {
	return Deps{Istio: telemetry.NewIstio(telemetry.NewRegistry(), telemetry.IstioSettings{})}
}

func config(url string, body []byte) compile.FilterConfig {
	return compile.FilterConfig{TypeURL: url, Any: &anypb.Any{TypeUrl: url, Value: body}, Struct: &structpb.Struct{}, Direction: stream.Inbound}
}

func TestEveryFilterTakesItsEmptyConfiguration(t *testing.T) {
	for _, f := range HTTP(deps()) {
		got, err := f.New(config(f.TypeURL, nil))
		if err != nil || got == nil || got.Name() != f.Name {
			t.Errorf("%s: %v, %v", f.Name, got, err)
		}
	}
}

func TestNoFilterIsListedTwice(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range HTTP(deps()) {
		if seen[f.TypeURL] || seen[f.Name] {
			t.Errorf("%s is listed twice", f.Name)
		}
		seen[f.TypeURL], seen[f.Name] = true, true
	}
}

func TestUnknownFieldsOfAFiltersConfigurationAreRefused(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 4242, protowire.VarintType), 1)
	for _, f := range HTTP(deps()) {
		c := config(f.TypeURL, unknown)
		if strings.Contains(f.TypeURL, "io.istio") || f.TypeURL == TypeStats { // carried as a Struct
			c.Struct = &structpb.Struct{Fields: map[string]*structpb.Value{"nonsense": structpb.NewBoolValue(true)}}
		}
		if got, err := f.New(c); err == nil || got != nil {
			t.Errorf("%s: took an unknown field: %v", f.Name, got)
		}
		if f.Route != nil {
			if _, err := f.Route(&anypb.Any{TypeUrl: c.TypeURL, Value: unknown}); err == nil {
				t.Errorf("%s: its route configuration took an unknown field", f.Name)
			}
		}
	}
}

func TestAFilterOfAnotherTypeIsRefused(t *testing.T) {
	for _, f := range HTTP(deps()) {
		if f.Route == nil {
			continue
		}
		if _, err := f.Route(&anypb.Any{TypeUrl: "type.googleapis.com/envoy.config.core.v3.Address"}); err == nil {
			t.Errorf("%s: took an Address as its route configuration", f.Name)
		}
	}
}

func FuzzFilterConfiguration(f *testing.F) {
	for i, m := range []proto.Message{&rbacv3.RBAC{}, &faultv3.HTTPFault{}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	list, network := HTTP(deps()), Network(deps())
	f.Fuzz(func(_ *testing.T, kind uint8, body []byte) {
		x := list[int(kind)%len(list)]
		_, _ = x.New(config(x.TypeURL, body))
		if x.Route != nil {
			_, _ = x.Route(&anypb.Any{TypeUrl: x.TypeURL, Value: body})
		}
		if n := network[int(kind)%len(network)]; n.Connection != nil {
			_, _ = n.Connection(config(n.TypeURL, body))
		}
	})
}
