package conformance

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/grpcstream"
	"weft.mesh/weft/control/status"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/proxy/proxytest"
	proxyserver "weft.mesh/weft/proxy/server"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// plane is our ADS server and authority over resources given by hand.
type plane struct {
	addr    string
	ca      *ca.CA
	tokens  *ca.Tokens
	ads     *xdsserver.Server
	tracker *status.Tracker
	stop    func() // ends all of it
}

// fixed is a snapshot of given resources, the same for every node.
type fixed struct {
	version string
	byType  map[string][]*xds.Resource
}

func (f *fixed) Version() string { return f.version }

func (f *fixed) Resources(_ *xds.Node, typeURL string, names []string) ([]*xds.Resource, error) {
	var out []*xds.Resource
	for _, r := range f.byType[typeURL] {
		if names == nil || contains(names, r.Name) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (f *fixed) Unchanged(xds.Snapshot, *xds.Node, string) bool { return false }

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func startPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{tracker: status.New()}
	var err error
	if p.ca, err = ca.Open(t.TempDir(), "cluster.local"); err != nil {
		t.Fatal(err)
	}
	if p.tokens, err = ca.OpenTokens(""); err != nil {
		t.Fatal(err)
	}
	serving, err := ca.NewServing(p.ca, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	log := testLog(t)
	p.ads = xdsserver.New(xdsserver.Settings{
		Authenticate: func(ctx context.Context) (spiffe.ID, error) { return ca.PeerID(ctx, "cluster.local") },
		Authorize:    xdsserver.CheckIdentity,
		Observer:     p.tracker,
		Log:          log,
	})
	g := grpc.NewServer(grpc.Creds(grpcstream.Credentials()))
	(&ca.Service{CA: p.ca, Tokens: p.tokens, Log: log}).Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	others := grpcstream.NewOthers(l.Addr())
	streams := grpcstream.New(grpcstream.Settings{
		Method: discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName, Accept: p.ads.Accept,
		Others: others, TLS: serving.TLSConfig(), Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(others) })
	wg.Go(func() { _ = streams.Serve(ctx, l) })
	p.stop = func() { cancel(); g.Stop(); wg.Wait() }
	t.Cleanup(p.stop)
	return p
}

// startProxy runs a whole weft-proxy in this process against the plane.
func (p *plane) startProxy(t *testing.T, change ...func(*proxyserver.Settings)) {
	t.Helper()
	id, err := spiffe.New("cluster.local", "default", "app")
	if err != nil {
		t.Fatal(err)
	}
	set := proxyserver.Settings{
		Role: xds.Sidecar, Name: "app-1", Namespace: "default", IP: netip.MustParseAddr("127.0.0.1"), ServiceAccount: "app",
		XDS: p.addr, CARoots: p.ca.Roots(), StateDir: t.TempDir(), AllowDirect: true,
		Token: func() (string, error) {
			tok, _, err := p.tokens.Issue(id, 0)
			return tok, err
		},
		Drain: 100 * time.Millisecond, MinDrain: time.Millisecond,
		Log: testLog(t),
	}
	for _, f := range change {
		f(&set)
	}
	s, err := proxyserver.New(set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// listeners publishes listeners given by name: a good one, or one that nobody can honour.
func (p *plane) listeners(t *testing.T, version string, ls ...*listenerv3.Listener) {
	t.Helper()
	f := &fixed{version: version, byType: map[string][]*xds.Resource{}}
	for _, l := range ls {
		b, err := proto.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		f.byType[xds.ListenerType] = append(f.byType[xds.ListenerType], xds.NewResource(xds.ListenerType, l.GetName(), b))
	}
	p.ads.Publish(f)
}

// state waits for the proxy's listener state.
func (p *plane) state(t *testing.T, want string) admin.TypeStatus {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		for _, x := range p.tracker.Proxies() {
			if s := x.Types["LDS"]; s.State == want {
				return s
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("listeners are not %s: %+v", want, p.tracker.Proxies())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestARefusalReachesTheStatusWithItsReasonAndTheOldConfigServes(t *testing.T) {
	p := startPlane(t)
	port := proxytest.Port(t)
	good := answering(t, port, "good")
	p.listeners(t, "1", good)
	p.startProxy(t)
	p.state(t, admin.SyncSynced)
	if got := ask(t, port); got != "good" {
		t.Fatalf("answer %q, want good", got)
	}

	bad := answering(t, port, "bad")
	bad.FilterChains[0].Filters[0].Name = "example.filters.network.unheard_of"
	bad.FilterChains[0].Filters[0].GetTypedConfig().TypeUrl = "type.googleapis.com/example.UnheardOf"
	p.listeners(t, "2", bad)
	st := p.state(t, admin.SyncRefused)
	if st.LastNack == nil || !strings.Contains(st.LastNack.Reason, "UnheardOf") && !strings.Contains(st.LastNack.Reason, "unheard_of") || !strings.Contains(st.LastNack.Reason, bad.GetName()) {
		t.Errorf("the reason names neither the listener nor the filter: %+v", st.LastNack)
	}
	if st.Version != "1" {
		t.Errorf("last accepted version %q, want 1", st.Version)
	}
	if got := ask(t, port); got != "good" {
		t.Errorf("after the refusal: answer %q, want the old config's", got)
	}

	p.listeners(t, "3", answering(t, port, "better"))
	st = p.state(t, admin.SyncSynced)
	if st.LastNack == nil || !st.LastNack.Cleared {
		t.Errorf("the refusal is not marked as cleared: %+v", st.LastNack)
	}
	deadline := time.Now().Add(time.Minute)
	for got := ask(t, port); got != "better"; got = ask(t, port) {
		if time.Now().After(deadline) {
			t.Fatalf("answer %q, want better", got)
		}
	}
}
