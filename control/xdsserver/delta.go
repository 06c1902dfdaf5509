package xdsserver

import (
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/xds"
)

// DeltaAggregatedResources serves incremental ADS (xDS protocol, "incremental xDS").
func (s *Server) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return serve(g.Context(), s, &deltaProtocol{g: g}, true)
}

type deltaProtocol struct {
	g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (p *deltaProtocol) recv() (*discovery.DeltaDiscoveryRequest, error) { return p.g.Recv() }

func (p *deltaProtocol) node(r *discovery.DeltaDiscoveryRequest) (*xds.Node, error) {
	return nodeOf(r.GetNode())
}

func (p *deltaProtocol) handle(st *stream, r *discovery.DeltaDiscoveryRequest, now time.Time) ([]*message, error) {
	w, first := st.sess.watch(r.GetTypeUrl())
	if first {
		st.srv.set.Observer.Subscribed(st.id, w.typeURL, len(r.GetInitialResourceVersions()))
		for name, v := range r.GetInitialResourceVersions() {
			w.known[name] = v
		}
		w.wildcard = len(r.GetResourceNamesSubscribe()) == 0
	}
	if r.GetResponseNonce() != "" {
		st.settle(w, r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil, now)
	}
	changed := first
	for _, name := range r.GetResourceNamesSubscribe() {
		changed = true
		if name == "*" {
			w.wildcard = true
			continue
		}
		w.names[name] = struct{}{}
		// A name that is subscribed again is sent again, also if it did not
		// change; after a reconnect the initial versions spare that.
		if !first || w.known[name] == "" {
			w.force[name] = struct{}{}
		}
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		if name == "*" {
			w.wildcard = false
			continue
		}
		delete(w.names, name)
		if !w.wildcard {
			delete(w.known, name)
		}
	}
	if err := p.check(st, w, r); err != nil {
		return nil, err
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

func (p *deltaProtocol) check(st *stream, w *watch, r *discovery.DeltaDiscoveryRequest) error {
	if n := max(len(w.names), len(r.GetInitialResourceVersions())); n > st.srv.set.Limits.MaxNames {
		return status.Errorf(codes.ResourceExhausted, "xds: %d names of %s, at most %d", n, xds.ShortName(w.typeURL), st.srv.set.Limits.MaxNames)
	}
	if len(st.sess.watches) > maxTypes {
		return status.Errorf(codes.ResourceExhausted, "xds: %d types on one stream, at most %d", len(st.sess.watches), maxTypes)
	}
	return nil
}

func (p *deltaProtocol) send(m *message) (int, error) {
	r := &discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: m.version,
		TypeUrl:           m.typeURL,
		Nonce:             m.nonce,
		RemovedResources:  m.removed,
	}
	size := 0
	for _, x := range m.resources {
		size += len(x.Body)
		r.Resources = append(r.Resources, &discovery.Resource{
			Name:     x.Name,
			Version:  x.Version,
			Resource: &anypb.Any{TypeUrl: x.TypeURL, Value: x.Body},
		})
	}
	return size, p.g.Send(r)
}
