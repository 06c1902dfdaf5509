package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/internal/backoff"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

// proxy is one simulated sidecar. Its loop is the only one that writes the maps.
type proxy struct {
	node        *corev3.Node
	address     string
	credentials credentials.TransportCredentials
	traffic     *traffic

	mu    sync.Mutex // protects the following
	types map[string]*subscription
	live  bool // a stream is open and has everything
}

// subscription is what a proxy holds and asks for of one type.
type subscription struct {
	sent     bool
	names    map[string]bool
	versions map[string]string
	refs     map[string][]string
	acked    time.Time // the last acknowledgement
}

// traffic counts for all proxies.
type traffic struct {
	bytes     atomic.Int64 // of gRPC messages as they were on the wire, to the proxies
	responses atomic.Int64
	resources atomic.Int64
	streams   atomic.Int64
	refused   atomic.Int64 // streams that the control plane turned away
	reason    atomic.Pointer[string]
}

// totals are a traffic's counts at one moment.
type totals struct{ bytes, responses, resources int64 }

func (t *traffic) now() totals {
	return totals{t.bytes.Load(), t.responses.Load(), t.resources.Load()}
}

func (t totals) since(o totals) totals {
	return totals{t.bytes - o.bytes, t.responses - o.responses, t.resources - o.resources}
}

// TagRPC, HandleRPC, TagConn and HandleConn implement stats.Handler.
func (t *traffic) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (t *traffic) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (t *traffic) HandleConn(context.Context, stats.ConnStats)                       {}
func (t *traffic) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		t.bytes.Add(int64(in.WireLength))
	}
}

// sidecar describes a pod's proxy as weft-proxy describes itself.
func sidecar(ip, name, namespace, account string, labels map[string]string) *corev3.Node {
	l := map[string]any{}
	for k, v := range labels {
		l[k] = v
	}
	m, err := structpb.NewStruct(map[string]any{"NAMESPACE": namespace, "SERVICE_ACCOUNT": account, "WORKLOAD_NAME": account, "CLUSTER_ID": "Kubernetes", "LABELS": l})
	if err != nil {
		panic(err) // strings are valid
	}
	return &corev3.Node{Id: fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.cluster.local", ip, name, namespace, namespace), Cluster: account + "." + namespace,
		Metadata: m, UserAgentName: xds.UserAgent, UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: "scale"},
		ClientFeatures: []string{patch.Feature}}
}

func newProxy(node *corev3.Node, address string, creds credentials.TransportCredentials, t *traffic) *proxy {
	p := &proxy{node: node, address: address, credentials: creds, traffic: t, types: map[string]*subscription{}}
	for _, u := range []string{xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType} {
		p.types[u] = &subscription{names: map[string]bool{}, versions: map[string]string{}, refs: map[string][]string{}}
	}
	return p
}

func wildcard(typeURL string) bool { return typeURL == xds.ClusterType || typeURL == xds.ListenerType }

// run keeps a stream open until ctx ends, with weft-proxy's back-off.
func (p *proxy) run(ctx context.Context) {
	b := backoff.New(backoff.Full(100*time.Millisecond, 10*time.Second), nil)
	for ctx.Err() == nil {
		began := time.Now()
		err := p.stream(ctx)
		p.mu.Lock()
		p.live = false
		p.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if refusal(err) {
			p.traffic.refused.Add(1)
			text := err.Error()
			p.traffic.reason.Store(&text)
		}
		if time.Since(began) > 5*time.Second {
			b.Reset()
		}
		select {
		case <-ctx.Done():
		case <-time.After(b.Next()):
		}
	}
}

// refusal tells that a control plane answered, and did not want the stream. That
// none answers, or that it dies, is no refusal.
func refusal(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		return strings.Contains(err.Error(), "too many new streams")
	case codes.OK, codes.Canceled, codes.Unknown:
		return false
	}
	return true
}

func (p *proxy) stream(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+p.address, grpc.WithTransportCredentials(p.credentials), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.ForceCodecV2(codec{})),
		grpc.WithReadBufferSize(16<<10), grpc.WithWriteBufferSize(xds.WriteBuffer), grpc.WithStaticStreamWindowSize(1<<20), grpc.WithStaticConnWindowSize(1<<20), grpc.WithStatsHandler(p.traffic))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName)
	if err != nil {
		return err
	}
	p.traffic.streams.Add(1)
	for i, r := range p.open() {
		if i == 0 {
			r.Node = p.node
		}
		if err := g.SendMsg(r); err != nil {
			return g.RecvMsg(&response{}) // the server's word
		}
	}
	for {
		var r response
		if err := g.RecvMsg(&r); err != nil {
			return err
		}
		for _, q := range p.take(&r) {
			if err := g.SendMsg(q); err != nil {
				return g.RecvMsg(&response{})
			}
		}
	}
}

// open lists the first requests of a stream.
func (p *proxy) open() []*discovery.DeltaDiscoveryRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*discovery.DeltaDiscoveryRequest
	for _, u := range xds.PushOrder {
		s := p.types[u]
		if s == nil {
			continue
		}
		s.sent = wildcard(u) || len(s.names) > 0
		if s.sent {
			out = append(out, &discovery.DeltaDiscoveryRequest{TypeUrl: u, ResourceNamesSubscribe: slices.Sorted(maps.Keys(s.names)), InitialResourceVersions: maps.Clone(s.versions)})
		}
	}
	p.live = true
	return out
}

// take keeps a response, and returns the acknowledgement and the subscriptions that follow from it.
func (p *proxy) take(r *response) []*discovery.DeltaDiscoveryRequest {
	p.traffic.responses.Add(1)
	p.traffic.resources.Add(int64(len(r.resources) + len(r.removed)))
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.types[r.typeURL]
	if s == nil {
		return nil
	}
	for _, x := range r.resources {
		s.versions[x.name] = x.version
		if len(x.refs) > 0 {
			s.refs[x.name] = x.refs
		} else {
			delete(s.refs, x.name)
		}
	}
	for _, n := range r.removed {
		delete(s.versions, n)
		delete(s.refs, n)
	}
	s.acked = time.Now()
	out := []*discovery.DeltaDiscoveryRequest{{TypeUrl: r.typeURL, ResponseNonce: r.nonce}}
	switch r.typeURL {
	case xds.ClusterType:
		out = append(out, p.follow(s, xds.EndpointType)...)
	case xds.ListenerType:
		out = append(out, p.follow(s, xds.RouteType)...)
	}
	return out
}

// follow subscribes to what resources refer to. mu is held.
func (p *proxy) follow(from *subscription, typeURL string) []*discovery.DeltaDiscoveryRequest {
	to := p.types[typeURL]
	want := make(map[string]bool, len(from.refs))
	var add, drop []string
	for _, names := range from.refs {
		for _, n := range names {
			if !want[n] && !to.names[n] {
				add = append(add, n)
			}
			want[n] = true
		}
	}
	for n := range to.names {
		if !want[n] {
			drop = append(drop, n)
			delete(to.versions, n)
		}
	}
	to.names = want
	if len(add) == 0 && (len(drop) == 0 || !to.sent) {
		return nil
	}
	slices.Sort(add)
	slices.Sort(drop)
	q := &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: add, ResourceNamesUnsubscribe: drop}
	if !to.sent {
		to.sent = true
		q.InitialResourceVersions = maps.Clone(to.versions)
	}
	return []*discovery.DeltaDiscoveryRequest{q}
}

// version is what the proxy holds under a name, and when it last acknowledged the type.
func (p *proxy) version(typeURL, name string) (string, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.types[typeURL]
	return s.versions[name], s.acked
}

// complete tells whether the proxy is connected and has all that it asked for.
func (p *proxy) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return false
	}
	for u, s := range p.types {
		if !s.sent || len(s.versions) == 0 || !wildcard(u) && len(s.versions) < len(s.names) {
			return false
		}
	}
	return true
}
