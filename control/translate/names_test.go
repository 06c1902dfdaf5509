package translate_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// tableOf is the name table of a node, decoded.
func tableOf(t *testing.T, s *translate.Snapshot, n *xds.Node) (map[string]nds.Info, []*xds.Resource) {
	t.Helper()
	rs, err := s.Resources(n, xds.NameTableType, nil)
	if err != nil || len(rs) != 1 || rs[0].Name != xds.NameTableName {
		t.Fatalf("%d resources, %v", len(rs), err)
	}
	table, err := nds.Decode(rs[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	return table, rs
}

func caseOf(t *testing.T, name string) translatetest.Case {
	t.Helper()
	all := translatetest.Load(t, "testdata")
	i := slices.IndexFunc(all, func(c translatetest.Case) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no case %q", name)
	}
	return all[i]
}

// The table has services, headless services with their pods, and hosts of ServiceEntries, as far as they have an
// address and are exported to who asks; allocated addresses only for those who listen at them.
func TestNameTable(t *testing.T) {
	c := caseOf(t, "names")
	s := translate.New(c.World, c.Mesh)
	node := func(namespace string, dns bool) *xds.Node {
		return &xds.Node{ID: "sidecar~10.244.9.9~c." + namespace + "~" + namespace + ".svc.cluster.local", Type: xds.Sidecar, Namespace: namespace, Name: "c",
			WeftProxy: true, Metadata: xds.Metadata{DNSCapture: dns}}
	}
	auto := c.World.Service("api.example.com", "default").Auto.String()
	kubernetes := func(short, namespace string, ips ...string) nds.Info {
		return nds.Info{IPs: ips, Registry: nds.Kubernetes, Shortname: short, Namespace: namespace}
	}
	all := map[string]nds.Info{
		"web.default.svc.cluster.local":  kubernetes("web", "default", "10.96.0.7"),
		"db.data.svc.cluster.local":      kubernetes("db", "data", "10.244.0.4", "10.244.0.5"),
		"db-0.db.data.svc.cluster.local": kubernetes("db-0.db", "data", "10.244.0.4"),
		"db-1.db.data.svc.cluster.local": kubernetes("db-1.db", "data", "10.244.0.5"),
		"given.example.com":              {IPs: []string{"192.0.2.1", "192.0.2.2"}, Registry: nds.External},
		"*.wild.example":                 {IPs: []string{"192.0.2.3"}, Registry: nds.External},
		"api.example.com":                {IPs: []string{auto}, Registry: nds.External},
		"own.example.com":                {IPs: []string{"192.0.2.4"}, Registry: nds.External},
	}
	without := func(names ...string) map[string]nds.Info {
		out := map[string]nds.Info{}
		for k, v := range all {
			if !slices.Contains(names, k) {
				out[k] = v
			}
		}
		return out
	}
	for _, tt := range []struct {
		name, namespace string
		dns             bool
		want            map[string]nds.Info
	}{
		{"with its names", "default", true, all},
		{"without the addresses that are allocated", "default", false, without("api.example.com")},
		{"without what is not exported to it", "data", true, without("own.example.com")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, rs := tableOf(t, s, node(tt.namespace, tt.dns))
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if again, err := s.Resources(node(tt.namespace, tt.dns), xds.NameTableType, nil); err != nil || &again[0] != &rs[0] {
				t.Errorf("another node of the namespace has a list of its own (%v)", err)
			}
		})
	}
	if rs, err := s.Resources(&xds.Node{ID: "x", Type: xds.Sidecar, Namespace: "default", Name: "c", Generator: "grpc"}, xds.NameTableType, nil); err != nil || len(rs) != 0 {
		t.Errorf("proxyless gRPC gets %v, %v", rs, err)
	}
}

// A change that no name depends on leaves the list as it was; one of an endpoint of a headless service does not.
func TestNameTableIsMadeAgainOnlyForNames(t *testing.T) {
	c := caseOf(t, "names")
	n := &xds.Node{ID: "x", Type: xds.Sidecar, Namespace: "default", Name: "c", WeftProxy: true, Metadata: xds.Metadata{DNSCapture: true}}
	s := translate.New(c.World, c.Mesh)
	_, before := tableOf(t, s, n)
	next := func(key model.Key, objects ...model.Object) *translate.Snapshot {
		return s.Next(snapshot.Build(s.World(), []snapshot.Change{{Key: key, Objects: objects}}, time.Unix(1, 0)))
	}
	rule := model.Key{Kind: model.KindDestinationRule, Namespace: "default", Name: "web"}
	same := next(rule, &model.DestinationRule{Meta: model.Meta{Key: rule}, Host: "web.default.svc.cluster.local"})
	if !same.Unchanged(s, n, xds.NameTableType) {
		t.Error("a DestinationRule changes names")
	}
	if _, after := tableOf(t, same, n); &after[0] != &before[0] {
		t.Error("a DestinationRule makes another list")
	}
	gone := next(model.Key{Kind: model.KindPod, Namespace: "data", Name: "db-1"})
	if gone.Unchanged(s, n, xds.NameTableType) {
		t.Error("a pod of a headless service went, and names are the same")
	}
	table, _ := tableOf(t, gone, n)
	if d := cmp.Diff([]string{"10.244.0.4"}, table["db.data.svc.cluster.local"].IPs); d != "" {
		t.Error(d)
	}
	if _, ok := table["db-1.db.data.svc.cluster.local"]; ok {
		t.Error("the pod's name is still there")
	}
}
