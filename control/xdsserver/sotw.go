package xdsserver

import (
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/xds"
)

// maxTypes bounds the types on one stream; xDS has about a dozen.
const maxTypes = 32

// StreamAggregatedResources serves state-of-the-world ADS, for gRPC's own
// client and others that have no incremental one.
func (s *Server) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return serve(g.Context(), s, &fullProtocol{g: g}, false)
}

type fullProtocol struct {
	g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer
}

func (p *fullProtocol) recv() (*discovery.DiscoveryRequest, error) { return p.g.Recv() }

func (p *fullProtocol) node(r *discovery.DiscoveryRequest) (*xds.Node, error) {
	return nodeOf(r.GetNode())
}

func (p *fullProtocol) handle(st *stream, r *discovery.DiscoveryRequest, now time.Time) ([]*message, error) {
	w, first := st.sess.watch(r.GetTypeUrl())
	if len(st.sess.watches) > maxTypes {
		return nil, status.Errorf(codes.ResourceExhausted, "xds: %d types on one stream, at most %d", len(st.sess.watches), maxTypes)
	}
	if n := len(r.GetResourceNames()); n > st.srv.set.Limits.MaxNames {
		return nil, status.Errorf(codes.ResourceExhausted, "xds: %d names of %s, at most %d", n, xds.ShortName(w.typeURL), st.srv.set.Limits.MaxNames)
	}
	if first {
		st.has = "" // it has one more type
		st.witness.Subscribed(w.typeURL, 0)
	}
	if nonce := r.GetResponseNonce(); nonce != "" && !first {
		// A stale nonce belongs to a response that a newer one replaced: the
		// request says nothing new (xDS protocol, "ACK and resource type instance version").
		// The newest nonce comes again with each change of the names.
		if nonce != w.nonce {
			return nil, nil
		}
		st.settle(w, nonce, r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil, now)
	}
	if !p.subscribe(st, w, r.GetResourceNames(), first) {
		return nil, nil
	}
	st.sess.subscribed(w.typeURL)
	m, err := st.sess.answer(w)
	if m == nil || err != nil {
		return nil, err
	}
	return []*message{m}, nil
}

// subscribe replaces the names and tells whether anything new was asked for.
func (p *fullProtocol) subscribe(st *stream, w *watch, names []string, first bool) bool {
	list, wildcard := withoutStar(names)
	if len(names) == 0 && (first || w.wildcard) {
		wildcard = true // legacy wildcard: no names in the first request
	}
	set := st.srv.hub.names.of(noNames.edit(list, nil))
	same := wildcard == w.wildcard && slices.Equal(set.list, w.names.list)
	w.wildcard, w.names = wildcard, set
	if same && !first {
		return false
	}
	w.again = w.again || len(set.list) > 0
	return true
}

func (p *fullProtocol) send(m *message) (int, error) {
	r := &discovery.DiscoveryResponse{VersionInfo: m.version, TypeUrl: m.typeURL, Nonce: m.nonce}
	size := 0
	for _, x := range m.resources {
		size += len(x.Body)
		r.Resources = append(r.Resources, &anypb.Any{TypeUrl: x.TypeURL, Value: x.Body})
	}
	return size, p.g.Send(r)
}
