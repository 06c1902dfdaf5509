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

// DeltaAggregatedResources serves incremental ADS (xDS protocol, "incremental xDS").
func (s *Server) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return serve(g.Context(), s, &deltaProtocol{g: g, gzip: compressed(g.Context())}, true)
}

type deltaProtocol struct {
	g    discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	gzip bool // the client takes compressed messages
}

func (p *deltaProtocol) recv() (*discovery.DeltaDiscoveryRequest, error) { return p.g.Recv() }

func (p *deltaProtocol) node(r *discovery.DeltaDiscoveryRequest) (*xds.Node, error) {
	return nodeOf(r.GetNode())
}

func (p *deltaProtocol) handle(st *stream, r *discovery.DeltaDiscoveryRequest, now time.Time) ([]*message, error) {
	return st.delta(requestOf(r), now)
}

// xdsNode is who the client says it is.
func (r *request) xdsNode() (*xds.Node, error) {
	n, err := r.node()
	if err != nil {
		return nil, err
	}
	return nodeOf(n)
}

// delta puts a request of incremental xDS into the session.
func (st *stream) delta(r *request, now time.Time) ([]*message, error) {
	w, first := st.sess.watch(r.typeURL)
	if err := st.check(w, r); err != nil {
		return nil, err
	}
	if first {
		st.has = "" // it has one more type
		st.witness.Subscribed(w.typeURL, r.held)
		w.wildcard = len(r.subscribe) == 0
	}
	if r.nonce != "" {
		st.settle(w, r.nonce, r.reason, r.refused, now)
	}
	add, all := withoutStar(r.subscribe)
	drop, none := withoutStar(r.unsubscribe)
	changed := first || len(r.subscribe) > 0
	w.wildcard = (w.wildcard || all) && !none
	if len(add)+len(drop) > 0 {
		st.sess.subscribe(w, add, drop, first)
	}
	if n := len(w.names.list); n > st.srv.set.Limits.MaxNames {
		return nil, st.tooManyNames(w, n)
	}
	if first && r.held > 0 {
		if err := st.sess.recognise(w, r.versions); err != nil {
			return nil, err
		}
	}
	if !changed {
		return nil, nil
	}
	st.sess.subscribed(w.typeURL)
	m, err := st.sess.answer(w)
	if m == nil || err != nil {
		return nil, err
	}
	return []*message{m}, nil
}

// withoutStar takes the name out that means all resources.
func withoutStar(names []string) (rest []string, star bool) {
	if !slices.Contains(names, "*") {
		return names, false
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "*" }), true
}

// check bounds what one request may cost.
func (st *stream) check(w *watch, r *request) error {
	if n := max(len(r.subscribe), len(r.unsubscribe), r.held); n > st.srv.set.Limits.MaxNames {
		return st.tooManyNames(w, n)
	}
	if len(st.sess.watches) > maxTypes {
		return status.Errorf(codes.ResourceExhausted, "xds: %d types on one stream, at most %d", len(st.sess.watches), maxTypes)
	}
	return nil
}

func (st *stream) tooManyNames(w *watch, n int) error {
	return status.Errorf(codes.ResourceExhausted, "xds: %d names of %s, at most %d", n, xds.ShortName(w.typeURL), st.srv.set.Limits.MaxNames)
}

func (p *deltaProtocol) send(m *message) (int, error) {
	if m.wire != nil {
		return m.wire.size(m), p.g.Send(m.wire.response(m, p.gzip))
	}
	r := &discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: m.version,
		TypeUrl:           m.typeURL,
		Nonce:             m.nonce,
		RemovedResources:  m.removed,
	}
	for _, x := range m.resources {
		typeURL, body := m.body(x)
		r.Resources = append(r.Resources, &discovery.Resource{
			Name:     x.Name,
			Version:  x.Version,
			Resource: &anypb.Any{TypeUrl: typeURL, Value: body},
		})
	}
	return m.size(), p.g.Send(r)
}
