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
	w, first := st.sess.watch(r.GetTypeUrl())
	if err := p.check(st, w, r); err != nil {
		return nil, err
	}
	if first {
		st.srv.set.Observer.Subscribed(st.id, w.typeURL, len(r.GetInitialResourceVersions()))
		if v := r.GetInitialResourceVersions(); len(v) > 0 {
			w.told = v
		}
		w.wildcard = len(r.GetResourceNamesSubscribe()) == 0
	}
	if r.GetResponseNonce() != "" {
		st.settle(w, r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil, now)
	}
	add, all := withoutStar(r.GetResourceNamesSubscribe())
	drop, none := withoutStar(r.GetResourceNamesUnsubscribe())
	changed := first || len(r.GetResourceNamesSubscribe()) > 0
	w.wildcard = (w.wildcard || all) && !none
	if len(add)+len(drop) > 0 {
		st.sess.subscribe(w, add, drop, first)
	}
	if n := len(w.names.list); n > st.srv.set.Limits.MaxNames {
		return nil, st.tooManyNames(w, n)
	}
	if first {
		if err := st.sess.recognise(w); err != nil {
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
func (p *deltaProtocol) check(st *stream, w *watch, r *discovery.DeltaDiscoveryRequest) error {
	if n := max(len(r.GetResourceNamesSubscribe()), len(r.GetResourceNamesUnsubscribe()), len(r.GetInitialResourceVersions())); n > st.srv.set.Limits.MaxNames {
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
	size := 0
	for _, x := range m.resources {
		typeURL, body := m.body(x)
		size += len(body)
		r.Resources = append(r.Resources, &discovery.Resource{
			Name:     x.Name,
			Version:  x.Version,
			Resource: &anypb.Any{TypeUrl: typeURL, Value: body},
		})
	}
	return size, p.g.Send(r)
}
