package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/grpcstream"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// gRPC limits. Messages are large (a mesh's clusters), streams live for days.
const (
	maxRecv       = 16 << 20
	maxConcurrent = 1000 // streams on one connection
	keepaliveTime = 30 * time.Second
	ageGrace      = 10 * time.Second // for calls under way on a connection that is too old
	// readBuffer is what each connection keeps: proxies say little but acknowledgements.
	readBuffer = 4 << 10
	// window is for what clients send. A fixed one spares both a ping for each message; it is as small as gRPC has it,
	// since a thousand proxies that come back at once, each with what it has, wait for their turn with a window full.
	window = 1 << 16
)

// grpcOptions are those of all servers. Connections end after maxAge, give or
// take a tenth; streams on them get some time to end by themselves. 0: never.
func grpcOptions(maxAge time.Duration) []grpc.ServerOption {
	alive := keepalive.ServerParameters{Time: keepaliveTime, Timeout: 10 * time.Second}
	if maxAge > 0 {
		alive.MaxConnectionAge, alive.MaxConnectionAgeGrace = maxAge, ageGrace
	}
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRecv),
		grpc.MaxConcurrentStreams(maxConcurrent),
		grpc.ReadBufferSize(readBuffer), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.ConnectionTimeout(20 * time.Second),
		grpc.KeepaliveParams(alive),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// secureServer serves state-of-the-world xDS, the CA and the debug API over TLS (15012): all that streams does not.
func (s *Server) secureServer(svc *ca.Service) *grpc.Server {
	g := grpc.NewServer(append(grpcOptions(s.set.MaxConnectionAge), grpc.Creds(grpcstream.Credentials()), grpc.ChainStreamInterceptor(s.gate.intercept, s.debugStream))...)
	s.secureXDS.Register(g)
	svc.Register(g)
	healthpb.RegisterHealthServer(g, health.NewServer())
	return g
}

// streams serves what proxies connect for, incremental xDS, and has the connections with other calls served by the gRPC server.
func (s *Server) streams(serving *ca.Serving, others *grpcstream.Others) *grpcstream.Server {
	return grpcstream.New(grpcstream.Settings{
		Method: discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
		Accept: func(ctx context.Context, carrier *grpcstream.Stream) (grpcstream.Receiver, error) {
			return s.gate.accept(ctx, carrier, s.secureXDS.Accept)
		},
		Others: others, TLS: serving.TLSConfig(), MaxMessage: maxRecv, KeepAlive: keepaliveTime, MaxAge: s.set.MaxConnectionAge, AgeGrace: ageGrace, Log: s.set.Log,
	})
}

// plainServer serves xDS without authentication (15010), on loopback unless set otherwise: for
// proxyless gRPC, Envoy and tools on this machine.
func (s *Server) plainServer() *grpc.Server {
	g := grpc.NewServer(append(grpcOptions(0), grpc.StreamInterceptor(s.gate.intercept))...)
	s.plainXDS.Register(g)
	return g
}

// authenticate is for 15012: no identity, no stream.
func (s *Server) authenticate(ctx context.Context) (spiffe.ID, error) {
	id, err := ca.PeerID(ctx, s.ca.TrustDomain())
	if err == nil && id.IsZero() {
		err = errors.New("xds: a client certificate is required; get one from IstioCertificateService on this port first")
	}
	return id, err
}

// authorize is for 15012: the node is whose the certificate is. Of a gateway's account it is found out whether it may have keys.
func (s *Server) authorize(id spiffe.ID, n *xds.Node) error {
	if err := xdsserver.CheckIdentity(id, n); err != nil {
		return err
	}
	n.ReadsSecrets = s.set.ReadsSecrets == nil
	if n.Type != xds.Router || n.ReadsSecrets {
		return nil
	}
	var err error
	if n.ReadsSecrets, err = s.set.ReadsSecrets(context.Background(), n.Namespace, n.Metadata.ServiceAccount); err != nil {
		return err // it goes on with what it has, and comes again
	}
	if !n.ReadsSecrets {
		s.set.Log.Info("xds: the account of a gateway may not list the Secrets of its namespace: it gets no certificates of Istio's Gateways",
			"node", n.ID, "namespace", n.Namespace, "account", n.Metadata.ServiceAccount)
	}
	return nil
}

// plaintext is for 15010: nobody is anybody.
func plaintext(context.Context) (spiffe.ID, error) { return spiffe.ID{}, nil }

func anyNode(spiffe.ID, *xds.Node) error { return nil }

// loopbackOnly refuses an unauthenticated address that others can reach.
func loopbackOnly(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("plaintext xDS address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("plaintext xDS address %q: only loopback is allowed, everything else uses TLS on 15012", addr)
	}
	return nil
}

// serveGRPC serves until ctx ends.
func serveGRPC(ctx context.Context, g *grpc.Server, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	defer close(done)
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		// Streams never end by themselves: proxies go on with what they have.
		g.Stop()
	})
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

func newXDS(set Settings, auth func(context.Context) (spiffe.ID, error), check func(spiffe.ID, *xds.Node) error, o xdsserver.Observer, m xdsserver.Meter) *xdsserver.Server {
	return xdsserver.New(xdsserver.Settings{Authenticate: auth, Authorize: check, Observer: o, Meter: m, Log: set.Log})
}
