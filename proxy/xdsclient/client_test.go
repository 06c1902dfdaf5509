package xdsclient

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"weft.mesh/weft/internal/backoff"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/xdstest"
)

// memorySink keeps resources as they come; bodies that begin with "bad" are
// refused. A cluster's or listener's body names what it refers to.
type memorySink struct {
	mu        sync.Mutex
	resources map[string]map[string]*xds.Resource
	order     []string // types as applied
	commits   int
	changed   chan struct{}
}

func newSink() *memorySink {
	return &memorySink{resources: map[string]map[string]*xds.Resource{}, changed: make(chan struct{}, 1)}
}

func (s *memorySink) Apply(u Update) (refused []string, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(s.order, xds.ShortName(u.TypeURL))
	m := s.resources[u.TypeURL]
	if m == nil {
		m = map[string]*xds.Resource{}
		s.resources[u.TypeURL] = m
	}
	for _, r := range u.Set {
		if strings.HasPrefix(string(r.Body), "bad") {
			refused, reason = append(refused, r.Name), "body: bad"
			continue
		}
		m[r.Name] = r
	}
	for _, n := range u.Removed {
		delete(m, n)
	}
	return refused, reason
}

func (s *memorySink) Wanted(typeURL string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := map[string]string{xds.EndpointType: xds.ClusterType, xds.RouteType: xds.ListenerType}[typeURL]
	var out []string
	for _, r := range s.resources[from] {
		if len(r.Body) > 0 {
			out = append(out, string(r.Body))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *memorySink) Commit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *memorySink) Accepted(typeURL string) []*xds.Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*xds.Resource
	for _, r := range s.resources[typeURL] {
		out = append(out, r)
	}
	return out
}

func (s *memorySink) has(typeURL, name, body string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resources[typeURL][name]
	return r != nil && string(r.Body) == body
}

// until waits for commits until the condition holds.
func (s *memorySink) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-s.changed:
		case <-time.After(time.Minute):
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

type rig struct {
	fake   *xdstest.FakeServer
	sink   *memorySink
	client *Client
	set    Settings
}

var node = &corev3.Node{Id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local"}

// serve starts a gRPC server for reg and returns its address.
func serve(t *testing.T, reg func(*grpc.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	reg(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return l.Addr().String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{fake: xdstest.NewFakeServer(), sink: newSink()}
	addr := serve(t, func(g *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, r.fake) })
	t.Cleanup(r.fake.Close)
	r.set = Settings{Address: addr, Node: node, Credentials: insecure.NewCredentials(), Sink: r.sink,
		Backoff: backoff.Full(time.Millisecond, 5*time.Millisecond), File: filepath.Join(t.TempDir(), "last-good")}
	return r
}

// start runs a client until the returned function is called.
func (r *rig) start(t *testing.T) (stop func()) {
	t.Helper()
	c, err := New(r.set)
	if err != nil {
		t.Fatal(err)
	}
	c.Load()
	r.client = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func res(typeURL, name, body string) *xds.Resource {
	return xds.NewResource(typeURL, name, []byte(body))
}

func TestWhatClustersAndListenersReferToIsSubscribedTo(t *testing.T) {
	r := newRig(t)
	r.fake.Set(res(xds.ClusterType, "c", "e"), res(xds.EndpointType, "e", "endpoints"), res(xds.EndpointType, "other", "x"),
		res(xds.ListenerType, "l", "80"), res(xds.RouteType, "80", "routes"))
	r.start(t)
	r.sink.until(t, "endpoints and routes", func() bool {
		return r.sink.has(xds.EndpointType, "e", "endpoints") && r.sink.has(xds.RouteType, "80", "routes")
	})
	if r.sink.has(xds.EndpointType, "other", "x") {
		t.Error("endpoints that nothing refers to were asked for")
	}
	first, _ := r.fake.Wait(0, func(*discoveryv3.DeltaDiscoveryRequest) bool { return true })
	if first.GetNode().GetId() != node.GetId() || first.GetTypeUrl() != xds.ClusterType {
		t.Errorf("first request = %v, want clusters with the node", first)
	}
	_, next := r.fake.WaitACK(0, xds.EndpointType)
	r.fake.Set(res(xds.ClusterType, "c", "e2"))
	unsub, _ := r.fake.Wait(next, func(q *discoveryv3.DeltaDiscoveryRequest) bool { return len(q.GetResourceNamesUnsubscribe()) > 0 })
	if !slices.Equal(unsub.GetResourceNamesUnsubscribe(), []string{"e"}) || !slices.Equal(unsub.GetResourceNamesSubscribe(), []string{"e2"}) || unsub.GetNode() != nil {
		t.Errorf("request = %v, want to swap e for e2", unsub)
	}
}

func TestARefusedResourceIsNACKedWithTheReasonAndItsVersionIsNotHeld(t *testing.T) {
	r := newRig(t)
	r.fake.Set(res(xds.ClusterType, "c", ""))
	r.start(t)
	nack, next := r.fake.WaitACK(0, xds.ClusterType)
	if nack != "" {
		t.Fatalf("NACK %q for a good cluster", nack)
	}
	r.fake.Set(res(xds.ClusterType, "c", "bad"), res(xds.ClusterType, "d", ""))
	nack, next = r.fake.WaitACK(next, xds.ClusterType)
	if !strings.Contains(nack, "body: bad") {
		t.Fatalf("NACK = %q", nack)
	}
	r.sink.until(t, "d", func() bool { return r.sink.has(xds.ClusterType, "d", "") })
	if !r.sink.has(xds.ClusterType, "c", "") {
		t.Error("the previous version went")
	}
	if st := r.client.Status(); st.NACKs != 1 || !strings.Contains(st.LastNACK, "body: bad") {
		t.Errorf("status = %+v", st)
	}
	r.fake.Cut()
	again, _ := r.fake.Wait(next, func(q *discoveryv3.DeltaDiscoveryRequest) bool {
		return q.GetTypeUrl() == xds.ClusterType && q.GetResponseNonce() == ""
	})
	v := again.GetInitialResourceVersions()
	if v["c"] != xds.Version(nil) || v["d"] == "" {
		t.Errorf("initial versions = %v, want the accepted version of c (%s) and d", v, xds.Version(nil))
	}
}

func TestAfterAReconnectOnlyWhatChangedIsSent(t *testing.T) {
	r := newRig(t)
	r.fake.Set(res(xds.ClusterType, "c", "e"), res(xds.EndpointType, "e", "1"))
	r.start(t)
	_, next := r.fake.WaitACK(0, xds.EndpointType)
	updates := r.client.Status().Updates
	r.fake.Cut()
	again, _ := r.fake.Wait(next, func(q *discoveryv3.DeltaDiscoveryRequest) bool {
		return q.GetTypeUrl() == xds.EndpointType && q.GetResponseNonce() == ""
	})
	if again.GetInitialResourceVersions()["e"] == "" || !slices.Equal(again.GetResourceNamesSubscribe(), []string{"e"}) {
		t.Errorf("request = %v", again)
	}
	r.fake.Set(res(xds.EndpointType, "e", "2"))
	r.sink.until(t, "the new endpoints", func() bool { return r.sink.has(xds.EndpointType, "e", "2") })
	if got := r.client.Status().Updates - updates; got != 1 {
		t.Errorf("%d responses after the reconnect, want 1", got)
	}
}

func TestTheLastGoodFileServesWithoutAControlPlane(t *testing.T) {
	r := newRig(t)
	r.fake.Set(res(xds.ClusterType, "c", "e"), res(xds.EndpointType, "e", "1"))
	stop := r.start(t)
	r.sink.until(t, "endpoints", func() bool { return r.sink.has(xds.EndpointType, "e", "1") })
	stop() // writes what is out of date
	info, err := os.Stat(r.set.File)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("last-good file: %v, %v", info, err)
	}
	offline := &rig{sink: newSink(), set: r.set}
	offline.set.Sink, offline.set.Address = offline.sink, "127.0.0.1:1"
	offline.start(t)
	if !offline.sink.has(xds.EndpointType, "e", "1") || offline.sink.commits != 1 {
		t.Error("the last good resources are not served")
	}
	if !offline.client.Status().FromDisk {
		t.Error("status does not say that the configuration came from disk")
	}
	// And the next stream asks for changes only.
	back := &rig{fake: r.fake, sink: newSink(), set: r.set}
	back.set.Sink = back.sink
	_, next := r.fake.Wait(0, func(*discoveryv3.DeltaDiscoveryRequest) bool { return true })
	back.start(t)
	q, _ := r.fake.Wait(next, func(q *discoveryv3.DeltaDiscoveryRequest) bool { return len(q.GetInitialResourceVersions()) > 0 })
	if q.GetTypeUrl() != xds.ClusterType || q.GetInitialResourceVersions()["c"] == "" {
		t.Errorf("request = %v", q)
	}
}

func TestADamagedLastGoodFileIsIgnored(t *testing.T) {
	good := encode("n", []*xds.Resource{res(xds.ClusterType, "c", "body")})
	if rs, err := decode(good, "n"); err != nil || len(rs) != 1 || string(rs[0].Body) != "body" {
		t.Fatalf("decode = %v, %v", rs, err)
	}
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 1
		if _, err := decode(b, "n"); err == nil {
			t.Errorf("byte %d damaged: taken", i)
		}
		if _, err := decode(good[:i], "n"); err == nil {
			t.Errorf("cut at byte %d: taken", i)
		}
	}
	if _, err := decode(good, "other"); err == nil {
		t.Error("another node's file was taken")
	}
	r := newRig(t)
	if err := os.WriteFile(r.set.File, []byte("weft-xds-1\nrubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	r.set.Log = slog.New(slog.NewTextHandler(&log, nil))
	c, err := New(r.set)
	if err != nil {
		t.Fatal(err)
	}
	if c.Load() || !strings.Contains(log.String(), "ignored") {
		t.Errorf("log = %s", log.String())
	}
}

func FuzzDecodeLastGood(f *testing.F) {
	f.Add(encode("n", []*xds.Resource{res(xds.ClusterType, "c", "body")}))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = decode(b, "n") })
}
