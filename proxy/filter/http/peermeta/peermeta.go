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
package peermeta

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"sync"

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
)

// maxHeader bounds what is decoded, in bytes of base64.
const maxHeader = 16 << 10

// Node is our own workload.
type Node struct {
	ID       string // "sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local"
	Workload *stream.Workload
}

// Filter is bound to one direction. Safe for concurrent use.
type Filter struct {
	direction    stream.Direction
	metadata, id []byte // our headers, as HTTP/1 writes them; nil: we are nobody
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
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(exchange.Metadata(n.Workload))
		if err != nil {
			return nil, fmt.Errorf("peer metadata: encode: %w", err)
		}
		lines := []byte(headerMetadata + ": " + base64.StdEncoding.EncodeToString(data) + "\r\n" + headerID + ": " + n.ID + "\r\n")
		end := bytes.IndexByte(lines, '\n') + 1
		f.metadata, f.id = lines[:end], lines[end:]
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

// caller learns who calls. It is remembered on the connection, which belongs to one peer.
func (f *Filter) caller(s *filter.Stream, data []byte) {
	if data == nil || !s.Conn.MutualTLS() {
		return
	}
	if w := f.known.lookup(data, s.Conn.PeerID.String()); w != nil {
		s.Info.Peer = w
	}
}

// Upstream implements [filter.Upstreamer].
func (f *Filter) Upstream(s *filter.Stream, c *stream.ConnInfo) {
	if f.direction == stream.Inbound {
		return
	}
	if !c.MutualTLS() {
		drop(&s.Req.Fields) // a try before may have gone to a peer
		return
	}
	f.introduce(&s.Req.Fields)
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
	data := h.Get(headerMetadata)
	if f.direction != stream.Inbound && data != nil && !s.Direct && !s.Info.UpstreamID.IsZero() {
		if w := f.known.lookup(data, s.Info.UpstreamID.String()); w != nil {
			s.Info.Peer = w
		}
	}
	drop(h)
	if f.direction == stream.Inbound && s.Info.Peer != nil && s.Conn.MutualTLS() {
		f.introduce(h)
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

// cache keeps decoded peers by the bytes they came in and the identity they proved.
type cache struct {
	mu    sync.RWMutex
	peers map[string]map[string]*stream.Workload // mu: by principal, then by header
	size  int                                    // mu: bytes of keys
}

// maxCache bounds the bytes kept: a peer that makes up ever new metadata may not fill
// the memory. When it is reached, the cache begins anew.
const maxCache = 4 << 20

func (c *cache) lookup(data []byte, principal string) *stream.Workload {
	if len(data) > maxHeader {
		return nil
	}
	c.mu.RLock()
	w := c.peers[principal][string(data)]
	c.mu.RUnlock()
	if w != nil {
		return w
	}
	if w = decode(data, principal); w == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size += len(data) + len(principal); c.peers == nil || c.size > maxCache {
		c.peers = make(map[string]map[string]*stream.Workload)
		c.size = len(data) + len(principal)
	}
	m := c.peers[principal]
	if m == nil {
		m = make(map[string]*stream.Workload)
		c.peers[principal] = m
	}
	m[string(data)] = w
	return w
}

func decode(data []byte, principal string) *stream.Workload {
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(data)))
	n, err := base64.StdEncoding.Decode(raw, data)
	if err != nil {
		return nil
	}
	var s structpb.Struct
	if proto.Unmarshal(raw[:n], &s) != nil {
		return nil
	}
	w := exchange.Workload(&s)
	if w != nil {
		w.Principal = principal
	}
	return w
}
