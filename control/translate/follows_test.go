package translate_test

import (
	"fmt"
	"net/netip"
	"testing"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// Sidecars that had the same list of endpoints, and are said to follow, have the same list after a change.
func TestSidecarsThatFollowHaveTheSameEndpoints(t *testing.T) {
	slice := func(ready bool) model.Object {
		var all []model.SliceEndpoint
		for i := range 3 {
			all = append(all, model.SliceEndpoint{Pod: fmt.Sprint("web-", i), Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprint("10.0.0.", 10+i))}, Ready: ready || i > 0, Serving: ready || i > 0})
		}
		return &model.EndpointSlice{Meta: meta(model.KindEndpointSlice, "default", "web"), Service: "web", Ports: []model.SlicePort{{Name: "http", Number: 8080}}, Endpoints: all}
	}
	nodeIn := func(name, zone string) model.Object {
		return &model.Node{Meta: meta(model.KindNode, "", name), Region: "r", Zone: zone}
	}
	onNode := func(name, ip, node string) *model.Workload {
		p := pod("default", name, ip, "web")
		p.Node = node
		return p
	}
	v2 := onNode("web-1", "10.0.0.11", "n1")
	v2.Labels["version"] = "v2"
	tests := []struct {
		name    string
		objects []model.Object
		follows bool
	}{
		{"an endpoint goes", []model.Object{slice(false)}, true},
		{"a node moves", []model.Object{nodeIn("n1", "b")}, false},
		{"a pod has other labels", []model.Object{v2}, false},
		{"an endpoint goes and a pod changes", []model.Object{slice(false), v2}, false},
		{"routes that ask for labels", []model.Object{slice(false), &model.RouteSet{Meta: meta(model.KindVirtualService, "default", "r"), Hosts: []string{"web.default.svc.cluster.local"}, Gateways: []string{"mesh"},
			HTTP: []model.Route{{Matches: []model.HTTPMatch{{SourceLabels: map[string]string{"version": "v2"}}}, Forward: []model.Destination{{Host: "web.default.svc.cluster.local", Weight: 1}}}}}}, false},
		{"a rule", []model.Object{&model.DestinationRule{Meta: meta(model.KindDestinationRule, "default", "web"), Host: "web.default.svc.cluster.local"}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects := []model.Object{service("default", "web"), nodeIn("n0", "a"), nodeIn("n1", "a"), slice(true)}
			var nodes []*xds.Node
			for i := range 3 {
				name, ip := fmt.Sprint("web-", i), fmt.Sprint("10.0.0.", 10+i)
				objects = append(objects, onNode(name, ip, fmt.Sprint("n", i%2)))
				nodes = append(nodes, sidecar("default", name, ip))
			}
			w := snapshot.Build(snapshot.Empty(model.Mesh{EndpointSlices: true}), changes(objects...), epoch)
			before := translate.New(w, w.Mesh())
			old := map[*xds.Node]**xds.Resource{}
			for _, n := range nodes {
				old[n] = &get(t, before, n, xds.EndpointType)[0]
			}
			if old[nodes[0]] != old[nodes[1]] {
				t.Fatal("sidecars of one zone have lists of their own")
			}
			after := before.Next(snapshot.Build(w, changes(tt.objects...), epoch))
			for _, n := range nodes {
				if got := after.Follows(before, n, xds.EndpointType); got != tt.follows {
					t.Errorf("%s follows: %t", n.Name, got)
				}
				for _, o := range nodes {
					if tt.follows && old[n] == old[o] && &get(t, after, n, xds.EndpointType)[0] != &get(t, after, o, xds.EndpointType)[0] {
						t.Errorf("%s and %s had the same list, and have two", n.Name, o.Name)
					}
				}
			}
			if after.Follows(before, nodes[0], xds.RouteType) || after.Follows(before, &xds.Node{Type: xds.Router}, xds.EndpointType) {
				t.Error("other types, or gateways, are said to follow")
			}
		})
	}
}

// What sidecars see of endpoints is one list for all namespaces with the same clusters, and stays one; where a namespace has a rule of its own it
// is another.
func TestNamespacesWithTheSameClustersShareEndpoints(t *testing.T) {
	slice := func(ready bool) model.Object {
		return &model.EndpointSlice{Meta: meta(model.KindEndpointSlice, "default", "web"), Service: "web", Ports: []model.SlicePort{{Name: "http", Number: 8080}},
			Endpoints: []model.SliceEndpoint{{Pod: "web-0", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.10")}, Ready: ready, Serving: ready}}}
	}
	here, there := sidecar("default", "web-0", "10.0.0.10"), sidecar("other", "app-0", "10.0.0.20")
	w := snapshot.Build(snapshot.Empty(model.Mesh{EndpointSlices: true}), changes(service("default", "web"), slice(true), pod("default", "web-0", "10.0.0.10", "web"), pod("other", "app-0", "10.0.0.20", "app")), epoch)
	before := translate.New(w, w.Mesh())
	list := func(s *translate.Snapshot, n *xds.Node) **xds.Resource { return &get(t, s, n, xds.EndpointType)[0] }
	if list(before, here) != list(before, there) {
		t.Error("two lists of the same endpoints")
	}
	w = snapshot.Build(w, changes(slice(false)), epoch)
	after := before.Next(w)
	if list(after, here) != list(after, there) || list(after, here) == list(before, here) {
		t.Error("after a change: two lists, or the one before")
	}
	rule := &model.DestinationRule{Meta: meta(model.KindDestinationRule, "other", "web"), Host: "web.default.svc.cluster.local", ExportTo: []string{"."}, Subsets: []model.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}}}}
	ruled := after.Next(snapshot.Build(w, changes(rule), epoch))
	if a, b := get(t, ruled, here, xds.EndpointType), get(t, ruled, there, xds.EndpointType); len(a) != 1 || len(b) != 2 {
		t.Errorf("%d and %d endpoints, want the subset's too where the rule is", len(a), len(b))
	}
}
