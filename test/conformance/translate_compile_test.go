package conformance

import (
	"slices"
	"testing"
	"time"

	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter/http/peermeta"
	"weft.mesh/weft/proxy/filterset"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/telemetry"
	"weft.mesh/weft/xds"
)

// TestTheProxyTakesWhatTranslateMakes feeds every golden case, and random
// meshes, to the proxy's compile: nothing may be refused, and all listeners must become usable.
func TestTheProxyTakesWhatTranslateMakes(t *testing.T) {
	cases := translatetest.Load(t, "../../control/translate/testdata")
	for seed := range uint64(100) {
		cases = append(cases, translatetest.Random(seed))
	}
	for _, c := range cases {
		for _, n := range c.Nodes {
			if n.Kind == "grpc" {
				continue
			}
			t.Run(c.Name+"/"+n.Kind+" "+n.Name, func(t *testing.T) {
				snap := translate.New(c.World, c.Mesh)
				k := newCompiler(n.Node)
				for _, typ := range xds.PushOrder {
					rs, err := snap.Resources(n.Node, typ, nil)
					if err != nil {
						t.Fatal(err)
					}
					_, refused := k.Apply(compile.Update{TypeURL: typ, Set: rs, Replace: true}, time.Unix(0, 0))
					for _, r := range refused {
						t.Errorf("refused: %s", r)
					}
				}
				if p := k.Pending(); len(p) > 0 {
					t.Errorf("still waiting for %q", p)
				}
				want, err := snap.Resources(n.Node, xds.ListenerType, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got := len(k.View().Listeners); got != len(want) {
					t.Errorf("%d listeners usable, want %d", got, len(want))
				}
			})
		}
	}
}

func newCompiler(n *xds.Node) *compile.Compiler {
	deps := filterset.Deps{
		Istio: telemetry.NewIstio(telemetry.NewRegistry(), telemetry.IstioSettings{}),
		Self:  peermeta.Node{ID: n.ID, Workload: &stream.Workload{Name: n.Name, Namespace: n.Namespace}},
	}
	return compile.New(compile.Settings{
		HTTPFilters: filterset.HTTP(deps), NetworkFilters: filterset.Network(deps), Gateway: n.Type == xds.Router,
		AccessLog: func(a compile.AccessLog) (*config.AccessLog, error) {
			return &config.AccessLog{Name: a.Name, Log: func(*stream.Info) {}}, nil
		},
		ReadFile: func(name string) ([]byte, error) { return testFile(name) },
	})
}

// wildcardTypes are asked for whole; the proxy asks for the others by name.
var wildcardTypes = []string{xds.ListenerType, xds.ClusterType}

// TestTheProxyAsksForWhatTranslateHas follows the names that the proxy asks
// for: each must exist, unless it is a destination that does not.
func TestTheProxyAsksForWhatTranslateHas(t *testing.T) {
	for _, c := range translatetest.Load(t, "../../control/translate/testdata") {
		for _, n := range c.Nodes {
			if n.Kind == "grpc" {
				continue
			}
			t.Run(c.Name+"/"+n.Kind+" "+n.Name, func(t *testing.T) {
				snap := translate.New(c.World, c.Mesh)
				k := newCompiler(n.Node)
				for _, typ := range wildcardTypes {
					rs, _ := snap.Resources(n.Node, typ, nil)
					k.Apply(compile.Update{TypeURL: typ, Set: rs, Replace: true}, time.Unix(0, 0))
				}
				for _, typ := range []string{xds.RouteType, xds.EndpointType, xds.SecretType} {
					names := k.Wanted(typ)
					rs, err := snap.Resources(n.Node, typ, names)
					if err != nil {
						t.Fatal(err)
					}
					for _, name := range names {
						if !slices.ContainsFunc(rs, func(r *xds.Resource) bool { return r.Name == name }) {
							t.Errorf("%s %q is asked for and does not exist", xds.ShortName(typ), name)
						}
					}
				}
			})
		}
	}
}
