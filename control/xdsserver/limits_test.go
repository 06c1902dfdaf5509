package xdsserver

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"weft.mesh/weft/control/grpcstream"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// deaf hears nothing.
type deaf struct{}

func (deaf) Connected(uint64, *xds.Node, spiffe.ID) Witness { return deaf{} }
func (deaf) Disconnected(uint64)                            {}
func (deaf) Subscribed(string, int)                         {}
func (deaf) Sent(string, string, int, int)                  {}
func (deaf) Acked(string, string)                           {}
func (deaf) Nacked(string, string, string)                  {}
func (deaf) Settled(string)                                 {}

// carriers are the ways to serve incremental ADS.
var carriers = []string{"grpc", "grpcstream"}

// eachCarrier runs a test over all of them.
func eachCarrier(t *testing.T, test func(t *testing.T, carrier string)) {
	for _, c := range carriers {
		t.Run(c, func(t *testing.T) { test(t, c) })
	}
}

// dial serves ADS on loopback, everyone as one identity.
func dial(t *testing.T, carrier string, l Limits) discovery.AggregatedDiscoveryServiceClient {
	t.Helper()
	s, c := dialServer(t, carrier, l)
	s.Publish(snap("1"))
	return c
}

func dialServer(t *testing.T, carrier string, l Limits) (*Server, discovery.AggregatedDiscoveryServiceClient) {
	t.Helper()
	s, connect := serveADS(t, carrier, l)
	return s, connect()
}

// serveADS returns a server, and what makes a connection of its own to it.
func serveADS(t *testing.T, carrier string, l Limits) (*Server, func() discovery.AggregatedDiscoveryServiceClient) {
	t.Helper()
	id, err := spiffe.New("cluster.local", "default", "greedy")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Settings{
		Limits: l, Observer: deaf{}, Log: slog.New(slog.DiscardHandler),
		Authenticate: func(context.Context) (spiffe.ID, error) { return id, nil },
		Authorize:    func(spiffe.ID, *xds.Node) error { return nil },
	})
	g := grpc.NewServer()
	s.Register(g)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	if carrier == "grpc" {
		wg.Go(func() { _ = g.Serve(ln) })
	} else {
		others := grpcstream.NewOthers(ln.Addr())
		wg.Go(func() { _ = g.Serve(others) })
		wg.Go(func() {
			_ = grpcstream.New(grpcstream.Settings{Method: discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName, Accept: s.Accept, Others: others}).Serve(ctx, ln)
		})
	}
	t.Cleanup(func() { cancel(); g.Stop(); wg.Wait() })
	return s, func() discovery.AggregatedDiscoveryServiceClient {
		c, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return discovery.NewAggregatedDiscoveryServiceClient(c)
	}
}

func TestAStreamThatNeverSaysItsNodeIsEnded(t *testing.T) {
	eachCarrier(t, aStreamThatNeverSaysItsNodeIsEnded)
}

func aStreamThatNeverSaysItsNodeIsEnded(t *testing.T, carrier string) {
	c := dial(t, carrier, Limits{Introduction: 50 * time.Millisecond})
	st, err := c.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("err = %v, want DeadlineExceeded", err)
	}
}

func TestOneIdentityCannotTakeAllStreams(t *testing.T) {
	eachCarrier(t, oneIdentityCannotTakeAllStreams)
}

func oneIdentityCannotTakeAllStreams(t *testing.T, carrier string) {
	c := dial(t, carrier, Limits{MaxPerIdentity: 3})
	ended := make(chan error, 5)
	for range 5 {
		st, err := c.DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, err := st.Recv(); ended <- err }()
	}
	for range 2 {
		select {
		case err := <-ended:
			if status.Code(err) != codes.ResourceExhausted {
				t.Fatalf("err = %v, want ResourceExhausted", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("fewer than 2 of 5 streams were refused with a limit of 3")
		}
	}
}

func TestNewStreamsTakeTurns(t *testing.T) { eachCarrier(t, newStreamsTakeTurns) }

func newStreamsTakeTurns(t *testing.T, carrier string) {
	s, c := dialServer(t, carrier, Limits{MaxEntering: 1, EntryTime: time.Hour})
	s.Publish(snap("1", "CDS a=1"))
	begin := func() (discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, chan *discovery.DeltaDiscoveryResponse) {
		st, err := c.DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local"}, TypeUrl: xds.ClusterType}); err != nil {
			t.Fatal(err)
		}
		got := make(chan *discovery.DeltaDiscoveryResponse, 1)
		go func() {
			r, err := st.Recv()
			if err != nil {
				t.Errorf("a stream that waits for its turn ends: %v", err)
			}
			got <- r
		}()
		return st, got
	}
	await := func(got chan *discovery.DeltaDiscoveryResponse, what string) *discovery.DeltaDiscoveryResponse {
		select {
		case r := <-got:
			return r
		case <-time.After(time.Minute):
			t.Fatal(what)
			return nil
		}
	}
	first, got := begin()
	r := await(got, "the first stream gets nothing")
	_, later := begin()
	// The second waits. That it would be answered cannot be ruled out by waiting; that it was not before its turn can be seen.
	select {
	case <-later:
		t.Fatal("the second stream was answered while the first is brought up to date")
	case <-time.After(50 * time.Millisecond):
	}
	if err := first.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: xds.ClusterType, ResponseNonce: r.GetNonce()}); err != nil {
		t.Fatal(err)
	}
	await(later, "the second stream gets no turn after the first has everything")
}

func TestAStreamThatDoesNotAnswerDoesNotKeepOthersOut(t *testing.T) {
	eachCarrier(t, aStreamThatDoesNotAnswerDoesNotKeepOthersOut)
}

func aStreamThatDoesNotAnswerDoesNotKeepOthersOut(t *testing.T, carrier string) {
	c := dial(t, carrier, Limits{MaxEntering: 1, EntryTime: time.Millisecond, Introduction: 50 * time.Millisecond})
	for range 3 { // each is let in, and ended because it does not say who it is
		st, err := c.DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("err = %v, want DeadlineExceeded", err)
		}
	}
}

// Whether a node is whose it says may be asked of somebody who does not answer: that holds up nobody else.
func TestWhoIsBeingCheckedHoldsUpNobody(t *testing.T) { eachCarrier(t, whoIsBeingCheckedHoldsUpNobody) }

func whoIsBeingCheckedHoldsUpNobody(t *testing.T, carrier string) {
	s, connect := serveADS(t, carrier, Limits{})
	checking, answer := make(chan struct{}), make(chan struct{})
	answered := sync.OnceFunc(func() { close(answer) })
	t.Cleanup(answered)
	s.set.Authorize = func(_ spiffe.ID, n *xds.Node) error {
		if strings.Contains(n.ID, "slow") {
			close(checking)
			<-answer
		}
		return nil
	}
	s.Publish(snap("1", "CDS a=1"))
	begin := func(name string) discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
		st, err := connect().DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "sidecar~10.0.0.1~" + name + ".default~default.svc.cluster.local"}, TypeUrl: xds.ClusterType}); err != nil {
			t.Fatal(err)
		}
		return st
	}
	hear := func(st discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, version string) {
		for {
			r, err := st.Recv()
			if err != nil {
				t.Fatalf("%s: %v", version, err)
			}
			if err := st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}); err != nil {
				t.Fatal(err)
			}
			if r.GetSystemVersionInfo() == version {
				return
			}
		}
	}
	quick := begin("quick")
	hear(quick, "1")
	slow := begin("slow")
	<-checking
	s.Publish(snap("2", "CDS a=2"))
	hear(quick, "2")
	answered()
	hear(slow, "2")
}
