// Package xdstest helps to test xDS clients and servers.
package xdstest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/xds"
)

// FakeServer is an incremental ADS server for tests of clients: it serves what
// [FakeServer.Set] was given, to every node alike, and remembers what clients
// said. Register it on a grpc.Server. Safe for concurrent use; Close ends its streams.
type FakeServer struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	mu        sync.Mutex
	resources map[string]map[string]*xds.Resource // by type and name
	streams   map[*fakeStream]struct{}
	requests  []*discoveryv3.DeltaDiscoveryRequest
	cond      *sync.Cond
	closed    bool
	nonce     int
}

// fakeStream is one client. mu of the server protects it.
type fakeStream struct {
	g    discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	subs map[string]*fakeSub
	out  chan *discoveryv3.DeltaDiscoveryResponse
	end  chan struct{}
	once sync.Once
}

type fakeSub struct {
	wildcard bool
	names    map[string]bool
	known    map[string]string
}

// NewFakeServer returns a server without resources.
func NewFakeServer() *FakeServer {
	s := &FakeServer{resources: map[string]map[string]*xds.Resource{}, streams: map[*fakeStream]struct{}{}}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// Set adds or replaces resources and pushes them in make-before-break order.
func (s *FakeServer) Set(rs ...*xds.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rs {
		if s.resources[r.TypeURL] == nil {
			s.resources[r.TypeURL] = map[string]*xds.Resource{}
		}
		s.resources[r.TypeURL][r.Name] = r
	}
	s.pushAll()
}

// Remove takes resources of a type away and pushes that.
func (s *FakeServer) Remove(typeURL string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		delete(s.resources[typeURL], n)
	}
	s.pushAll()
}

// Cut ends all streams; clients may come back.
func (s *FakeServer) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.stop()
	}
}

// Close ends all streams and every wait.
func (s *FakeServer) Close() {
	s.mu.Lock()
	s.closed = true
	s.cond.Broadcast()
	s.mu.Unlock()
	s.Cut()
}

// Streams is the number of connected clients.
func (s *FakeServer) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// Wait returns the first request (in the order received, from index from on) that fits,
// and the index after it. It blocks until there is one; after Close it returns nil.
func (s *FakeServer) Wait(from int, fits func(*discoveryv3.DeltaDiscoveryRequest) bool) (*discoveryv3.DeltaDiscoveryRequest, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := from; ; {
		for ; i < len(s.requests); i++ {
			if fits(s.requests[i]) {
				return s.requests[i], i + 1
			}
		}
		if s.closed {
			return nil, i
		}
		s.cond.Wait()
	}
}

// WaitACK waits for the answer to a push of a type and returns the error detail's message, "" for an ACK.
func (s *FakeServer) WaitACK(from int, typeURL string) (nack string, next int) {
	r, next := s.Wait(from, func(r *discoveryv3.DeltaDiscoveryRequest) bool {
		return r.GetTypeUrl() == typeURL && r.GetResponseNonce() != ""
	})
	return r.GetErrorDetail().GetMessage(), next
}

// DeltaAggregatedResources serves one stream.
func (s *FakeServer) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st := &fakeStream{g: g, subs: map[string]*fakeSub{}, out: make(chan *discoveryv3.DeltaDiscoveryResponse, 1024), end: make(chan struct{})}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("closed")
	}
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, st)
		s.mu.Unlock()
	}()
	go func() { // ends with the stream, which ends when this method returns
		for {
			r, err := g.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					st.stop()
				}
				return
			}
			s.request(st, r)
		}
	}()
	for {
		select {
		case r := <-st.out:
			if err := g.Send(r); err != nil {
				return err
			}
		case <-st.end:
			return errors.New("cut by the test")
		case <-g.Context().Done():
			return g.Context().Err()
		}
	}
}

func (st *fakeStream) stop() { st.once.Do(func() { close(st.end) }) }

func (s *FakeServer) request(st *fakeStream, r *discoveryv3.DeltaDiscoveryRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	s.cond.Broadcast()
	sub := st.subs[r.GetTypeUrl()]
	if sub == nil {
		sub = &fakeSub{names: map[string]bool{}, known: map[string]string{}, wildcard: len(r.GetResourceNamesSubscribe()) == 0}
		maps.Copy(sub.known, r.GetInitialResourceVersions())
		st.subs[r.GetTypeUrl()] = sub
	}
	for _, n := range r.GetResourceNamesSubscribe() {
		sub.names[n] = true
	}
	for _, n := range r.GetResourceNamesUnsubscribe() {
		delete(sub.names, n)
		delete(sub.known, n)
	}
	s.push(st, r.GetTypeUrl(), sub)
}

func (s *FakeServer) pushAll() {
	for st := range s.streams {
		for _, t := range xds.PushOrder {
			if sub := st.subs[t]; sub != nil {
				s.push(st, t, sub)
			}
		}
	}
}

func (s *FakeServer) push(st *fakeStream, typeURL string, sub *fakeSub) {
	s.nonce++
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: fmt.Sprint(s.nonce)}
	have := s.resources[typeURL]
	for _, n := range slices.Sorted(maps.Keys(have)) {
		r := have[n]
		if (sub.wildcard || sub.names[n]) && sub.known[n] != r.Version {
			sub.known[n] = r.Version
			resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: n, Version: r.Version, Resource: &anypb.Any{TypeUrl: typeURL, Value: r.Body}})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(sub.known)) {
		if have[n] == nil {
			delete(sub.known, n)
			resp.RemovedResources = append(resp.RemovedResources, n)
		}
	}
	if len(resp.Resources)+len(resp.RemovedResources) == 0 {
		return
	}
	select {
	case st.out <- resp:
	default: // a test that lets 1,024 responses wait is broken
		st.stop()
	}
}
