// Package translatetest loads the cases of translate's golden tests: a mesh as
// YAML, and the nodes to translate it for. Tests that feed the same cases to
// the proxy's compile, or to a real Envoy, use it too.
//
// A case is a folder with in.yaml (objects as users write them), optionally
// pods.yaml (Pods as the local runtime writes them) and directives in comments
// at the start of a line of in.yaml:
//
//	# mesh: registryOnly, accessLog, json, noAutoMTLS
//	# types: LDS RDS        (what the golden files show; default all)
//	# node: sidecar default/productpage-1
//	# node: sidecar-dns default/productpage-1   (it gets its names from the mesh)
//	# node: router weft-system/gateway-1
//	# node: envoy default/productpage-1
//	# node: grpc default/client-1
package translatetest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/ingress"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// Case is a mesh and the nodes it is translated for.
type Case struct {
	Name  string
	Dir   string
	Mesh  model.Mesh
	World *snapshot.World
	Nodes []Node
	Types []string // what golden files show
}

// Node is one node, with the name of its golden file.
type Node struct {
	*xds.Node
	Kind string // sidecar, router, envoy, grpc
	File string
}

// Load reads all cases below dir.
func Load(t testing.TB, dir string) []Case {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(dir, "*", "in.yaml"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("cases in %s: %v, %d found", dir, err, len(folders))
	}
	var out []Case
	for _, f := range folders {
		out = append(out, load(t, filepath.Dir(f)))
	}
	return out
}

func load(t testing.TB, dir string) Case {
	t.Helper()
	c := Case{Name: filepath.Base(dir), Dir: dir, Mesh: snapshot.Defaults(model.Mesh{}), Types: Types}
	text, err := os.ReadFile(filepath.Join(dir, "in.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "# mesh: "); ok {
			c.mesh(t, v)
		}
		if v, ok := strings.CutPrefix(line, "# types: "); ok {
			c.Types = slices.DeleteFunc(slices.Clone(Types), func(t string) bool { return !slices.Contains(strings.Fields(v), xds.ShortName(t)) })
		}
		if v, ok := strings.CutPrefix(line, "# node: "); ok {
			nodes = append(nodes, v)
		}
	}
	changes := Decode(t, filepath.Join(dir, "in.yaml"), c.Mesh, convert.Options{})
	changes = append(changes, frontEnds(t, filepath.Join(dir, "in.yaml"), c.Mesh)...)
	if pods := filepath.Join(dir, "pods.yaml"); exists(pods) {
		changes = append(changes, Decode(t, pods, c.Mesh, convert.Options{Pods: true})...)
	}
	c.World = snapshot.Build(snapshot.Empty(c.Mesh), changes, time.Unix(0, 0))
	for _, n := range nodes {
		c.Nodes = append(c.Nodes, c.node(t, n))
	}
	return c
}

// frontEnds is what the Gateway API's objects of a file, and its Ingresses, mean all together. Every Gateway of the class weft is served, by pods that have its label.
func frontEnds(t testing.TB, path string, mesh model.Mesh) []snapshot.Change {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	objects, _ := convert.Decode(admin.File{Name: filepath.Base(path), Content: string(text)}, convert.Options{})
	return append(Compute(objects, gatewayapi.Settings{Classes: []string{gatewayapi.ClassWeft}}, mesh), ComputeIngress(objects, ingress.SettingsOf(mesh), mesh)...)
}

// ComputeIngress is what Ingresses mean, among other objects.
func ComputeIngress(objects []convert.Object, set ingress.Settings, mesh model.Mesh) []snapshot.Change {
	c := ingress.NewComputer(set)
	for i := range objects {
		values, _ := convert.ToModel(&objects[i], mesh)
		c.Put(objects[i].Key, values)
	}
	var out []snapshot.Change
	for _, ch := range c.Update() {
		out = append(out, snapshot.Change{Key: ch.Key, Objects: ch.Objects})
	}
	return out
}

// Compute is what objects of the Gateway API mean, among others.
func Compute(objects []convert.Object, set gatewayapi.Settings, mesh model.Mesh) []snapshot.Change {
	c := gatewayapi.NewComputer(set)
	for i := range objects {
		o := &objects[i]
		var values []model.Object
		if !o.Key.Kind.IsGatewayAPI() {
			values, _ = convert.ToModel(o, mesh)
		}
		c.Put(o.Key, o.Value, values)
	}
	var out []snapshot.Change
	for _, ch := range c.Update() {
		out = append(out, snapshot.Change{Key: ch.Key, Objects: ch.Objects})
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (c *Case) mesh(t testing.TB, list string) {
	t.Helper()
	for v := range strings.SplitSeq(list, ", ") {
		switch v {
		case "registryOnly":
			c.Mesh.RegistryOnly = true
		case "accessLog":
			c.Mesh.AccessLogFile = "/dev/stdout"
		case "json":
			c.Mesh.AccessLogJSON = true
		case "noAutoMTLS":
			c.Mesh.DisableAutoMTLS = true
		default:
			t.Fatalf("%s: mesh directive %q is not known", c.Name, v)
		}
	}
}

// Decode converts a file of objects; anything refused fails the test.
func Decode(t testing.TB, path string, mesh model.Mesh, opts convert.Options) []snapshot.Change {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	objects, problems := convert.Decode(admin.File{Name: filepath.Base(path), Content: string(text)}, opts)
	var out []snapshot.Change
	for i := range objects {
		values, more := convert.ToModel(&objects[i], mesh)
		problems = append(problems, more...)
		out = append(out, snapshot.Change{Key: objects[i].Key, Objects: values})
	}
	if convert.HasErrors(problems) {
		t.Fatalf("%s: %+v", path, problems)
	}
	return out
}

func (c *Case) node(t testing.TB, s string) Node {
	t.Helper()
	var kind, ref string
	if _, err := fmt.Sscan(s, &kind, &ref); err != nil {
		t.Fatalf("%s: node %q: %v", c.Name, s, err)
	}
	ns, name, _ := strings.Cut(ref, "/")
	n := &xds.Node{Type: xds.Sidecar, Namespace: ns, Name: name, Domain: ns + ".svc.cluster.local", WeftProxy: kind != "envoy" && kind != "grpc"}
	n.IP = netip.MustParseAddr("10.244.9.9")
	if w := c.World.Pod(ns, name); w != nil {
		if len(w.Addresses) > 0 {
			n.IP = w.Addresses[0]
		}
		if w.Gateway {
			n.Type = xds.Router
		}
		n.Verified, n.ReadsSecrets, n.Metadata.ServiceAccount = true, true, w.ServiceAccount // as an authenticated stream proved it
	}
	switch kind {
	case "router":
		n.Type = xds.Router
	case "sidecar-dns":
		n.Metadata.DNSCapture = true
	case "grpc":
		n.Generator = "grpc"
	}
	n.ID = xds.NodeID(n.Type, n.IP, name, ns, n.Domain)
	return Node{Node: n, Kind: kind, File: filepath.Join(c.Dir, "out."+kind+"."+name+".yaml")}
}

// Types are all that a node is given, in the order that golden files have.
var Types = []string{xds.ListenerType, xds.RouteType, xds.ClusterType, xds.EndpointType}
