package conformance

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/node/dns"
	"weft.mesh/weft/proxy/proxytest"
	proxyserver "weft.mesh/weft/proxy/server"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

const namesMesh = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: %s, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: default}
spec: {hosts: [api.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
`

// named is a snapshot whose names are those of a World. Listeners are given: those of a World have fixed ports.
type named struct {
	*fixed
	names *translate.Snapshot
}

func (n *named) Resources(node *xds.Node, typeURL string, names []string) ([]*xds.Resource, error) {
	if typeURL == xds.NameTableType {
		return n.names.Resources(node, typeURL, names)
	}
	return n.fixed.Resources(node, typeURL, names)
}

// namesOf is the snapshot of a mesh where web has an address, and what was allocated for api.example.com.
func namesOf(t *testing.T, version, web string, port int) (snap *named, auto string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "in.yaml")
	text := fmt.Appendf(nil, namesMesh, web)
	for i := range 60 { // a table of more than 2 KB, which goes as a patch when little of it changes
		text = fmt.Appendf(text, "---\napiVersion: v1\nkind: Service\nmetadata: {name: other-%d, namespace: default}\nspec: {clusterIP: 10.96.1.%d, ports: [{name: http, port: 80}]}\n", i, i+1)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	mesh := snapshot.Defaults(model.Mesh{})
	world := snapshot.Build(snapshot.Empty(mesh), translatetest.Decode(t, file, mesh, convert.Options{}), time.Unix(0, 0))
	b, err := proto.Marshal(answering(t, port, "good"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixed{version: version, byType: map[string][]*xds.Resource{xds.ListenerType: {xds.NewResource(xds.ListenerType, answering(t, port, "good").GetName(), b)}}}
	return &named{f, translate.New(world, mesh)}, world.Service("api.example.com", "default").Auto.String()
}

// podNames answers as a pod's proxy does.
type podNames struct{ *dns.Server }

func (s podNames) SetTable(table map[string]nds.Info) {
	var hosts []dns.Host
	for name, i := range table {
		hosts = append(hosts, dns.Host{Name: name, Addrs: i.IPs, Short: i.Shortname, Namespace: i.Namespace})
	}
	s.Server.SetTable(dns.PodTable(hosts, "default", "cluster.local"))
}

// Counts implements server.NameServer; here nobody asks.
func (s podNames) Counts() proxyserver.NameCounts { return proxyserver.NameCounts{} }

// types are the short names of what the proxies subscribed to.
func (p *plane) types() []string {
	for _, x := range p.tracker.Proxies() {
		return slices.Sorted(maps.Keys(x.Types))
	}
	return nil
}

// Names that our control plane tells are answered by our proxy, follow changes, are part of the status, and outlive the control plane.
func TestNamesOfTheControlPlaneAreAnsweredByTheProxy(t *testing.T) {
	p := startPlane(t)
	port, at := proxytest.Port(t), fmt.Sprintf("127.0.0.1:%d", proxytest.Port(t))
	first, auto := namesOf(t, "1", "10.96.0.7", port)
	p.ads.Publish(first)
	outside := &dns.Server{}
	outside.SetTable(map[string][]string{"outside.example": {"192.0.2.9"}})
	p.startProxy(t, func(s *proxyserver.Settings) {
		s.DNSCapture, s.NamesAddress = true, at
		s.Names = podNames{&dns.Server{Partial: true, Upstreams: []netip.AddrPort{serveNames(t, outside)}}}
	})
	p.state(t, admin.SyncSynced)
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{
			"web.": "10.96.0.7", "web.default.svc.cluster.local.": "10.96.0.7", "api.example.com.": auto, "outside.example.": "192.0.2.9",
		} {
			awaitName(t, network, at, name, want)
		}
	}
	if !strings.HasPrefix(auto, "240.240.") {
		t.Errorf("allocated %s, want one of 240.240.0.0/16", auto)
	}
	if s := p.nds(t); s.State != admin.SyncSynced || s.Version != "1" {
		t.Errorf("status %+v, want synced at 1", s)
	}
	second, _ := namesOf(t, "2", "10.96.0.8", port)
	p.ads.Publish(second)
	awaitName(t, "udp", at, "web.", "10.96.0.8")
	awaitName(t, "udp", at, "other-59.default.", "10.96.1.60")
	p.stop()
	awaitName(t, "udp", at, "web.", "10.96.0.8")
	awaitName(t, "udp", at, "api.example.com.", auto)
}

// A proxy that answers no names subscribes to nothing more than before.
func TestWhoAnswersNoNamesAsksForNone(t *testing.T) {
	p := startPlane(t)
	snap, _ := namesOf(t, "1", "10.96.0.7", proxytest.Port(t))
	p.ads.Publish(snap)
	p.startProxy(t, func(s *proxyserver.Settings) { s.DNSCapture = true })
	p.state(t, admin.SyncSynced)
	if got := p.types(); slices.Contains(got, "NDS") {
		t.Errorf("subscribed to %v", got)
	}
}

// nds is the state of names once it is there.
func (p *plane) nds(t *testing.T) (s admin.TypeStatus) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		for _, x := range p.tracker.Proxies() {
			s = x.Types["NDS"]
		}
		if s.State == admin.SyncSynced || time.Now().After(deadline) {
			return s
		}
	}
}

// awaitName asks until the answer is the one.
func awaitName(t *testing.T, network, at, name, want string) {
	t.Helper()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, at)
	}}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got, err := r.LookupHost(t.Context(), name)
		if err == nil && slices.Equal(got, []string{want}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s over %s: %v, %v, want %s", name, network, got, err, want)
		}
	}
}

// serveNames serves on loopback until the test ends.
func serveNames(t *testing.T, s *dns.Server) netip.AddrPort {
	t.Helper()
	at := fmt.Sprintf("127.0.0.1:%d", proxytest.Port(t))
	pc, err := net.ListenPacket("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, pc, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return netip.MustParseAddrPort(at)
}
