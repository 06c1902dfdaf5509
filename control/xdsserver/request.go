package xdsserver

import (
	"errors"
	"iter"
	"maps"
	"unicode/utf8"
	"unsafe"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/xds/fields"
)

// request is what of a DeltaDiscoveryRequest matters to a session. Its strings are valid only while it is handled: who keeps one
// clones it.
type request struct {
	typeURL, nonce         string
	subscribe, unsubscribe []string
	held                   int                       // resources that the client says it has…
	versions               iter.Seq2[string, string] // …their names and versions
	refused                bool
	reason                 string
	node                   func() (*core.Node, error)
}

// nobody is who says a request without a node.
func nobody() (*core.Node, error) { return nil, nil }

// requestOf is a message as a request.
func requestOf(r *discovery.DeltaDiscoveryRequest) *request {
	return &request{
		typeURL: r.GetTypeUrl(), nonce: r.GetResponseNonce(), subscribe: r.GetResourceNamesSubscribe(), unsubscribe: r.GetResourceNamesUnsubscribe(),
		held: len(r.GetInitialResourceVersions()), versions: maps.All(r.GetInitialResourceVersions()),
		refused: r.GetErrorDetail() != nil, reason: r.GetErrorDetail().GetMessage(),
		node: func() (*core.Node, error) { return r.GetNode(), nil },
	}
}

// Field numbers of DeltaDiscoveryRequest, and of the entries of a map.
const (
	requestNode, requestType, requestSubscribe, requestUnsubscribe = 1, 2, 3, 4
	requestVersions, requestNonce, requestError                    = 5, 6, 7
	entryKey, entryValue                                           = 1, 2
)

// forget lets go of what was read.
func (r *request) forget() { *r = request{} }

// read reads an encoded DeltaDiscoveryRequest into an empty request, without copies: an acknowledgement costs next to
// nothing, and what a client that comes back has is thousands of names that we know. No list may be longer than most.
func (r *request) read(b []byte, most int) error {
	var node, detail []byte
	err := fields.Each(b, func(n protowire.Number, v []byte) error {
		switch n {
		case requestNode:
			node = v // of two the last: nobody sends two
		case requestError:
			detail, r.refused = v, true
		case requestVersions:
			r.held++
		case requestType, requestNonce, requestSubscribe, requestUnsubscribe:
			if !utf8.Valid(v) {
				return errors.New("a string is not UTF-8")
			}
			r.text(n, view(v))
		}
		if max(r.held, len(r.subscribe), len(r.unsubscribe)) > most {
			return status.Errorf(codes.ResourceExhausted, "xds: more than %d names in one request", most)
		}
		return nil
	})
	if err != nil {
		return malformed(err)
	}
	if r.refused {
		var st rpcstatus.Status
		if err := proto.Unmarshal(detail, &st); err != nil {
			return malformed(err)
		}
		r.reason = st.GetMessage()
	}
	if r.held > 0 {
		if err := checkVersions(b); err != nil {
			return malformed(err)
		}
		r.versions = func(yield func(string, string) bool) { eachVersion(b, yield) }
	}
	if r.node = nobody; node != nil {
		said := node // which nothing else changes: a request without one keeps it off the heap
		r.node = func() (*core.Node, error) {
			n := &core.Node{}
			return n, proto.Unmarshal(said, n)
		}
	}
	return nil
}

func (r *request) text(n protowire.Number, v string) {
	switch n {
	case requestType:
		r.typeURL = v
	case requestNonce:
		r.nonce = v
	case requestSubscribe:
		r.subscribe = append(r.subscribe, v)
	case requestUnsubscribe:
		r.unsubscribe = append(r.unsubscribe, v)
	}
}

func malformed(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Errorf(codes.InvalidArgument, "xds: malformed request: %v", err)
}

// view is bytes as a string, without a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// entry reads an entry of initial_resource_versions.
func entry(b []byte) (name, version []byte, err error) {
	err = fields.Each(b, func(n protowire.Number, v []byte) error {
		switch n {
		case entryKey:
			name = v
		case entryValue:
			version = v
		}
		return nil
	})
	return name, version, err
}

// checkVersions tells what eachVersion would stumble over.
func checkVersions(b []byte) error {
	return fields.Each(b, func(n protowire.Number, v []byte) error {
		if n != requestVersions {
			return nil
		}
		name, version, err := entry(v)
		if err == nil && (!utf8.Valid(name) || !utf8.Valid(version)) {
			err = errors.New("a string is not UTF-8")
		}
		return err
	})
}

var errEnough = errors.New("enough")

// eachVersion visits the names and versions that a checked request has.
func eachVersion(b []byte, yield func(name, version string) bool) {
	_ = fields.Each(b, func(n protowire.Number, v []byte) error {
		if n != requestVersions {
			return nil
		}
		name, version, _ := entry(v) // it was checked
		if !yield(view(name), view(version)) {
			return errEnough
		}
		return nil
	})
}
