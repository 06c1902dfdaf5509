// Package peermeta tells peers in the mesh which workload we are, and learns
// theirs, over the headers x-envoy-peer-metadata and x-envoy-peer-metadata-id
// (Istio's peer_metadata filter).
//
// Outbound and at gateways it adds our metadata to requests that go to a peer
// over mutual TLS, and takes the peer's off the response. Inbound it takes the
// caller's off the request and adds ours to the response if the caller asked by
// introducing itself. The headers never reach an application, nor a peer
// without mutual TLS, and are never believed from one. What a peer says here is
// for metrics and logs only; who it is, its certificate proves.
//
// Proxies of Istio say it with every request and response. Two of ours say it once
// on a connection: metadata that has the field WEFT_ONCE, which others skip, tells that
// its sender remembers what it hears on a connection, and hears silence as the same again. The field
// is the sender's SPIFFE ID: metadata that somebody in between has passed on is of this message only.
// The caller is silent once it has had such an answer, and the callee answers silence
// with silence. Who has something new to say of itself says it.
package peermeta

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"unique"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport/exchange"
)

// Name of the filter in Envoy's configuration, as Istio writes it.
const Name = "istio.metadata_exchange"

// TypeURL of its configuration, inside a TypedStruct.
const TypeURL = "type.googleapis.com/io.istio.http.peer_metadata.Config"

const (
	headerMetadata = "x-envoy-peer-metadata"
	headerID       = "x-envoy-peer-metadata-id"

	fieldOnce = "WEFT_ONCE" // of the metadata: to whom once on a connection is enough, if the connection is theirs
)

// Node is our own workload.
type Node struct {
	ID       string // "sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local"
	Workload *stream.Workload
}

// Filter is bound to one direction. Safe for concurrent use.
type Filter struct {
	direction    stream.Direction
	metadata, id []byte                // our headers, as HTTP/1 writes them; nil: we are nobody
	self         unique.Handle[string] // both
	known        cache
}

var (
	_ filter.HTTP       = (*Filter)(nil)
	_ filter.Upstreamer = (*Filter)(nil)
)

// New makes the filter. Of the configuration only discovery and propagation by Istio's headers count;
// what else Istio puts there (workload_discovery) has its answer in endpoint metadata.
func New(cfg *structpb.Struct, d stream.Direction, n Node) (*Filter, error) {
	if err := check(cfg); err != nil {
		return nil, fmt.Errorf("peer metadata: %w", err)
	}
	f := &Filter{direction: d}
	if !stream.ValidValue([]byte(n.ID)) {
		return nil, fmt.Errorf("peer metadata: node ID %q: has control characters", n.ID)
	}
	if n.Workload != nil {
		m := exchange.Metadata(n.Workload)
		if n.Workload.Principal != "" {
			m.Fields[fieldOnce] = structpb.NewStringValue(n.Workload.Principal)
		}
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("peer metadata: encode: %w", err)
		}
		lines := []byte(headerMetadata + ": " + base64.StdEncoding.EncodeToString(data) + "\r\n" + headerID + ": " + n.ID + "\r\n")
		end := bytes.IndexByte(lines, '\n') + 1
		f.metadata, f.id, f.self = lines[:end], lines[end:], unique.Make(string(lines))
	}
	return f, nil
}

// check refuses methods of discovery and propagation that are not known.
func check(cfg *structpb.Struct) error {
	for name, list := range cfg.GetFields() {
		switch name {
		case "downstream_discovery", "upstream_discovery", "downstream_propagation", "upstream_propagation":
		case "shared_with_upstream":
			if list.GetBoolValue() {
				return fmt.Errorf("shared_with_upstream: is not supported")
			}
			continue
		default:
			return fmt.Errorf("%s: is not supported", name)
		}
		for _, m := range list.GetListValue().GetValues() {
			for method := range m.GetStructValue().GetFields() {
				if method != "istio_headers" && method != "workload_discovery" {
					return fmt.Errorf("%s.%s: is not supported", name, method)
				}
			}
		}
	}
	return nil
}

// Name implements [filter.HTTP].
func (f *Filter) Name() string { return Name }

// Request implements [filter.HTTP].
func (f *Filter) Request(s *filter.Stream) filter.Verdict {
	data := s.Req.Fields.Get(headerMetadata)
	if f.direction == stream.Inbound {
		f.caller(s, data)
	}
	drop(&s.Req.Fields)
	return filter.Continue
}

// caller learns who calls.
func (f *Filter) caller(s *filter.Stream, data []byte) {
	if data == nil || !s.Conn.MutualTLS() {
		return // Info has whom we met on this connection
	}
	p := f.known.lookup(data, s.Conn.PeerID.String())
	if p == nil {
		return
	}
	s.Info.Peer = p.Workload
	mark(s)
	if p.once && f.metadata != nil {
		s.Conn.Met.Remember(p.Workload, f.self) // Response tells it: who asks is answered
	}
}

// asked is in a stream's scratch memory if its request introduced its caller.
var asked = new(byte)

func mark(s *filter.Stream) {
	for i := range s.State {
		if s.State[i] == nil {
			s.State[i] = asked
			return
		}
	}
}

func marked(s *filter.Stream) bool {
	for _, v := range s.State {
		if v == any(asked) {
			return true
		}
	}
	return false
}

// Upstream implements [filter.Upstreamer].
func (f *Filter) Upstream(s *filter.Stream, c *stream.ConnInfo) {
	if f.direction == stream.Inbound {
		return
	}
	if !c.MutualTLS() || f.knownTo(c) {
		drop(&s.Req.Fields) // a try before may have gone to another
		return
	}
	f.introduce(&s.Req.Fields)
}

// knownTo tells whether the other end of a connection knows us as we are.
func (f *Filter) knownTo(c *stream.ConnInfo) bool {
	a := c.Met.Known()
	return a != nil && a.Told == f.self
}

func (f *Filter) introduce(h *stream.Fields) {
	if f.metadata == nil {
		return
	}
	set(h, f.metadata, headerMetadata)
	set(h, f.id, headerID)
}

// set puts a line of ours in the place of the peer's, of which there is at most one left.
func set(h *stream.Fields, line []byte, name string) {
	if i := h.Index(name); i >= 0 {
		h.SetLine(i, line, len(name))
		return
	}
	h.AppendLine(line, len(name), false)
}

// Response implements [filter.HTTP].
func (f *Filter) Response(s *filter.Stream) {
	h := &s.Resp.Fields
	if f.direction != stream.Inbound {
		f.callee(s, h.Get(headerMetadata))
		drop(h)
		return
	}
	drop(h)
	if s.Info.Peer == nil || !s.Conn.MutualTLS() {
		return
	}
	if f.knownTo(s.Conn) && !marked(s) {
		return
	}
	f.introduce(h)
}

// callee learns who answers.
func (f *Filter) callee(s *filter.Stream, data []byte) {
	if s.Direct || s.Info.UpstreamID.IsZero() {
		return
	}
	var met *stream.Meeting
	if s.Upstream != nil {
		met = s.Upstream.Met
	}
	if data == nil {
		if w := met.Peer(); w != nil {
			s.Info.Peer = w
		}
		return
	}
	p := f.known.lookup(data, s.Info.UpstreamID.String())
	if p == nil {
		return
	}
	s.Info.Peer = p.Workload
	if p.once && f.metadata != nil {
		met.Remember(p.Workload, f.self)
	}
}

// drop takes the peer headers out. Most messages have none, which is found out quickly.
func drop(h *stream.Fields) {
	if !h.MayHave(len(headerMetadata)) {
		return
	}
	all := h.All()
	for i := range all {
		if n := all[i].Name; len(n) >= len(headerMetadata) && n[0]|0x20 == 'x' && isPeerHeader(all[i]) {
			h.DelFunc(isPeerHeader)
			return
		}
	}
}

func isPeerHeader(l stream.Field) bool {
	return len(l.Name) >= len(headerMetadata) && stream.EqualFold(l.Name[:len(headerMetadata)], headerMetadata)
}
