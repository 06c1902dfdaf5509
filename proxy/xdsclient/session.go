package xdsclient

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

// maxResources bounds how many resources one response may carry.
const maxResources = 100_000

// event is what happens to a session: opened, received or settled.
type event interface{ event() }

type (
	// opened: a new stream is there; everything sent before is forgotten.
	opened struct{}
	// received: a response came.
	received struct {
		response *discoveryv3.DeltaDiscoveryResponse
	}
	// settled: the Sink decided on an update.
	settled struct {
		update  pendingUpdate
		refused []string
		reason  string
	}
	// wanted: the names of a type to be subscribed to.
	wanted struct {
		typeURL string
		names   []string
	}
)

func (opened) event()   {}
func (received) event() {}
func (settled) event()  {}
func (wanted) event()   {}

// action is what a session wants done: send or apply.
type action interface{ action() }

type (
	send struct {
		request *discoveryv3.DeltaDiscoveryRequest
	}
	apply struct{ update pendingUpdate }
)

func (send) action()  {}
func (apply) action() {}

// pendingUpdate is an update and the nonce to answer it with.
type pendingUpdate struct {
	Update
	nonce string
	bad   []string // resources refused before the Sink saw them
	why   string
	whole []string // resources that are to be sent again, not as a patch
}

// session is the state of incremental ADS on the client's side. It has no
// clock, socket or goroutine; one owner.
type session struct {
	node  *corev3.Node
	order []string // the types that are subscribed to, in the order in which they are
	types map[string]*subscription
	// first tells that the next request is the stream's first, which carries the node.
	first bool
	// live tells that there was a stream; before the first one nothing is sent.
	live bool
	// accepted finds an accepted resource, which a patch is applied to; nil if there is none of that name.
	accepted func(typeURL, name string) *xds.Resource
}

// subscription is what is held and asked for of one type.
type subscription struct {
	sent     bool // a request of this type went out on the current stream
	names    map[string]bool
	versions map[string]string // of accepted resources
}

func newSession(node *corev3.Node, order []string, accepted func(typeURL, name string) *xds.Resource) *session {
	s := &session{node: node, order: order, types: map[string]*subscription{}, accepted: accepted}
	for _, t := range order {
		s.types[t] = &subscription{names: map[string]bool{}, versions: map[string]string{}}
	}
	return s
}

// held notes resources that were accepted before the first stream (last-good file).
func (s *session) held(rs []*xds.Resource) {
	for _, r := range rs {
		if sub := s.types[r.TypeURL]; sub != nil {
			sub.versions[r.Name] = r.Version
		}
	}
}

// Step takes one event and returns what to do, in order.
func (s *session) Step(e event) []action {
	switch e := e.(type) {
	case opened:
		return s.open()
	case received:
		return s.receive(e.response)
	case settled:
		return s.settle(e)
	case wanted:
		return s.want(e.typeURL, e.names)
	}
	panic(fmt.Sprintf("xdsclient: unknown event %T", e))
}

func (s *session) open() []action {
	s.first, s.live = true, true
	var out []action
	for _, t := range s.order {
		sub := s.types[t]
		sub.sent = false
		if wildcard(t) || len(sub.names) > 0 {
			out = append(out, s.subscribe(t, slices.Sorted(maps.Keys(sub.names))))
		}
	}
	return out
}

// subscribe is the first request of a type on a stream: no names mean all of
// it, and the versions that are held spare their transfer.
func (s *session) subscribe(typeURL string, names []string) action {
	sub := s.types[typeURL]
	sub.sent = true
	versions := maps.Clone(sub.versions)
	if !wildcard(typeURL) {
		maps.DeleteFunc(versions, func(n, _ string) bool { return !sub.names[n] })
	}
	return s.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names, InitialResourceVersions: versions})
}

func (s *session) request(r *discoveryv3.DeltaDiscoveryRequest) action {
	if s.first {
		r.Node, s.first = s.node, false
	}
	return send{r}
}

// receive checks a response's form. What is malformed is refused here, the rest is the Sink's.
func (s *session) receive(r *discoveryv3.DeltaDiscoveryResponse) []action {
	sub := s.types[r.GetTypeUrl()]
	if sub == nil || !sub.sent {
		return []action{s.nack(r.GetTypeUrl(), r.GetNonce(), "type "+r.GetTypeUrl()+" was not subscribed to")}
	}
	if n := len(r.GetResources()); n > maxResources {
		return []action{s.nack(r.GetTypeUrl(), r.GetNonce(), fmt.Sprintf("%d resources in one response, at most %d", n, maxResources))}
	}
	u := pendingUpdate{Update: Update{TypeURL: r.GetTypeUrl(), Removed: r.GetRemovedResources()}, nonce: r.GetNonce()}
	for i, x := range r.GetResources() {
		switch {
		case x.GetName() == "":
			u.why = fmt.Sprintf("resource %d has no name", i)
		case x.GetResource() == nil:
			// Only a heartbeat of a resource with a TTL has no body; we ask for none.
			u.bad, u.why = append(u.bad, x.GetName()), fmt.Sprintf("resource %q has no body", x.GetName())
		case x.GetTtl() != nil:
			u.bad, u.why = append(u.bad, x.GetName()), fmt.Sprintf("resource %q has a ttl, which is not supported", x.GetName())
		case x.GetResource().GetTypeUrl() == patch.Type:
			s.patched(&u, x)
		case x.GetResource().GetTypeUrl() != r.GetTypeUrl():
			u.bad, u.why = append(u.bad, x.GetName()), fmt.Sprintf("resource %q is a %s", x.GetName(), x.GetResource().GetTypeUrl())
		default:
			u.Set = append(u.Set, &xds.Resource{Name: x.GetName(), Version: x.GetVersion(), TypeURL: r.GetTypeUrl(), Body: x.GetResource().GetValue()})
		}
	}
	return []action{apply{u}}
}

// patched adds a resource that came as a patch of the one that is held. If another is held, it is asked for whole; one that is
// not wanted any more is passed by, since the server has been told.
func (s *session) patched(u *pendingUpdate, x *discoveryv3.Resource) {
	name, sub := x.GetName(), s.types[u.TypeURL]
	if !wildcard(u.TypeURL) && !sub.names[name] {
		return
	}
	body, err := patch.Apply(s.accepted(u.TypeURL, name), x.GetResource().GetValue(), x.GetVersion())
	switch {
	case errors.Is(err, patch.ErrBase):
		u.whole = append(u.whole, name)
	case err != nil:
		u.bad, u.why = append(u.bad, name), fmt.Sprintf("resource %q: %v", name, err)
	default:
		u.Set = append(u.Set, &xds.Resource{Name: name, Version: x.GetVersion(), TypeURL: u.TypeURL, Body: body})
	}
}

func (s *session) nack(typeURL, nonce, why string) action {
	return s.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: nonce, ErrorDetail: &status.Status{Code: int32(codes.InvalidArgument), Message: why}})
}

// settle answers an update and notes the versions that are held now.
func (s *session) settle(e settled) []action {
	sub := s.types[e.update.TypeURL]
	for _, r := range e.update.Set {
		if !slices.Contains(e.refused, r.Name) {
			sub.versions[r.Name] = r.Version
		}
	}
	for _, n := range e.update.Removed {
		delete(sub.versions, n)
	}
	why := e.reason
	if e.update.why != "" {
		why = joinText(why, e.update.why)
	}
	var again []action
	if len(e.update.whole) > 0 { // a name that is subscribed to again is sent again
		again = []action{s.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: e.update.TypeURL, ResourceNamesSubscribe: e.update.whole})}
	}
	if why != "" || len(e.refused) > 0 {
		return append([]action{s.nack(e.update.TypeURL, e.update.nonce, why)}, again...)
	}
	return append([]action{s.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: e.update.TypeURL, ResponseNonce: e.update.nonce})}, again...)
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// want changes a type's subscription to names.
func (s *session) want(typeURL string, names []string) []action {
	sub := s.types[typeURL]
	next := make(map[string]bool, len(names))
	var add, drop []string
	for _, n := range names {
		next[n] = true
		if !sub.names[n] {
			add = append(add, n)
		}
	}
	for n := range sub.names {
		if !next[n] {
			drop = append(drop, n)
			delete(sub.versions, n) // the server does not tell about it any more
		}
	}
	sub.names = next
	if !s.live || len(add) == 0 && len(drop) == 0 {
		return nil
	}
	slices.Sort(add)
	slices.Sort(drop)
	if !sub.sent {
		if len(add) == 0 { // an empty first request would mean everything
			return nil
		}
		return []action{s.subscribe(typeURL, add)}
	}
	return []action{s.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: add, ResourceNamesUnsubscribe: drop})}
}
