// Package filterset is the one list of filters that are built in. A filter that
// is not listed here is refused by name when a resource asks for it.
package filterset

import (
	"fmt"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/http/cors"
	"weft.mesh/weft/proxy/filter/http/fault"
	"weft.mesh/weft/proxy/filter/http/grpcstats"
	"weft.mesh/weft/proxy/filter/http/grpcweb"
	"weft.mesh/weft/proxy/filter/http/peermeta"
	"weft.mesh/weft/proxy/filter/http/rbac"
	"weft.mesh/weft/proxy/filter/http/stats"
	networkrbac "weft.mesh/weft/proxy/filter/network/rbac"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/telemetry"
)

// TypeStats is the type of Istio's metrics filter, inside a TypedStruct.
const TypeStats = "type.googleapis.com/stats.PluginConfig"

// Deps is what filters need of the proxy.
type Deps struct {
	Istio *telemetry.Istio
	Self  peermeta.Node // our own workload
	// NoHostFallback is how Istio records destinations without a service; a configuration that says otherwise is refused.
	NoHostFallback bool
}

// validated is a message with its own rules.
type validated interface {
	proto.Message
	Validate() error
}

// decode reads a typed_config into m.
func decode(a *anypb.Any, m validated) error {
	if err := a.UnmarshalTo(m); err != nil {
		return err
	}
	return m.Validate()
}

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

// HTTP lists the HTTP filters; the router is not one of them, it is the connection manager itself.
func HTTP(d Deps) []compile.HTTPFilter {
	return []compile.HTTPFilter{
		{
			Name: peermeta.Name, TypeURL: peermeta.TypeURL,
			New: func(c compile.FilterConfig) (filter.HTTP, error) {
				return wrap(peermeta.New(c.Struct, c.Direction, d.Self))
			},
		},
		{
			Name: rbac.Name, TypeURL: typeURL(&rbacv3.RBAC{}),
			New: func(c compile.FilterConfig) (filter.HTTP, error) {
				var x rbacv3.RBAC
				if err := decode(c.Any, &x); err != nil {
					return nil, err
				}
				return wrap(rbac.New(&x))
			},
			Route: func(a *anypb.Any) (any, error) {
				var x rbacv3.RBACPerRoute
				if err := decode(a, &x); err != nil {
					return nil, err
				}
				return wrap(rbac.Route(&x))
			},
		},
		{
			Name: grpcstats.Name, TypeURL: typeURL(&grpcstatsv3.FilterConfig{}),
			New: func(c compile.FilterConfig) (filter.HTTP, error) {
				var x grpcstatsv3.FilterConfig
				if err := decode(c.Any, &x); err != nil {
					return nil, err
				}
				return wrap(grpcstats.New(&x))
			},
		},
		{
			Name: grpcweb.Name, TypeURL: typeURL(&grpcwebv3.GrpcWeb{}),
			New: func(c compile.FilterConfig) (filter.HTTP, error) {
				var x grpcwebv3.GrpcWeb
				if err := decode(c.Any, &x); err != nil {
					return nil, err
				}
				return wrap(grpcweb.New(&x))
			},
		},
		{
			Name: fault.Name, TypeURL: typeURL(&faultv3.HTTPFault{}),
			New: func(c compile.FilterConfig) (filter.HTTP, error) {
				return wrap(faultOf(c.Any))
			},
			Route: func(a *anypb.Any) (any, error) { return wrap(faultOf(a)) },
		},
		{
			Name: cors.Name, TypeURL: typeURL(&corsv3.Cors{}),
			New: func(c compile.FilterConfig) (filter.HTTP, error) {
				var x corsv3.Cors
				if err := decode(c.Any, &x); err != nil {
					return nil, err
				}
				return wrap(cors.New(&x))
			},
			Route: corsRoute,
		},
		{
			Name: stats.Name, TypeURL: TypeStats,
			New: func(c compile.FilterConfig) (filter.HTTP, error) {
				if err := d.checkStats(c.Struct); err != nil {
					return nil, err
				}
				return stats.New(d.Istio), nil
			},
		},
	}
}

func faultOf(a *anypb.Any) (*fault.Filter, error) {
	var x faultv3.HTTPFault
	if err := decode(a, &x); err != nil {
		return nil, err
	}
	return fault.New(&x)
}

func corsRoute(a *anypb.Any) (any, error) {
	var x corsv3.CorsPolicy
	if err := decode(a, &x); err != nil {
		return nil, err
	}
	p, err := cors.Route(&x)
	if err != nil {
		return nil, err // and no typed nil
	}
	return p, nil
}

// wrap keeps an error from travelling with a typed nil.
func wrap[T filter.HTTP](f T, err error) (filter.HTTP, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Network lists the network filters; the connection manager, the TCP proxy and the metadata exchange are compile's own.
func Network(d Deps) []compile.NetworkFilter {
	return []compile.NetworkFilter{
		{
			Name: networkrbac.Name, TypeURL: typeURL(&networkrbacv3.RBAC{}),
			Connection: func(c compile.FilterConfig) (filter.Network, error) {
				var x networkrbacv3.RBAC
				if err := decode(c.Any, &x); err != nil {
					return nil, err
				}
				f, err := networkrbac.New(&x)
				if err != nil {
					return nil, err
				}
				return f, nil
			},
		},
		{
			Name: stats.Name, TypeURL: TypeStats,
			End: func(c compile.FilterConfig) (func(*stream.Info), error) {
				return d.Istio.TCP, d.checkStats(c.Struct)
			},
		},
	}
}

// checkStats refuses settings of istio.stats that are not honoured.
func (d Deps) checkStats(s *structpb.Struct) error {
	for name, v := range s.GetFields() {
		if name != "disable_host_header_fallback" {
			return fmt.Errorf("istio.stats: %s: not supported", name)
		}
		if v.GetBoolValue() != d.NoHostFallback {
			return fmt.Errorf("istio.stats: disable_host_header_fallback: %v: this proxy has %v for all listeners", v.GetBoolValue(), d.NoHostFallback)
		}
	}
	return nil
}
