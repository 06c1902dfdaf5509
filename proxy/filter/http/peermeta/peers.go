package peermeta

import (
	"encoding/base64"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport/exchange"
)

// maxHeader bounds what is decoded, in bytes of base64.
const maxHeader = 16 << 10

// peer is what metadata says. Immutable.
type peer struct {
	*stream.Workload
	once bool // it remembers what it is told on its connection, and this is its connection
}

// cache keeps decoded peers by the bytes they came in and the identity they proved.
type cache struct {
	mu    sync.RWMutex
	peers map[string]map[string]*peer // mu: by principal, then by header
	size  int                         // mu: bytes of keys
}

// maxCache bounds the bytes kept: a peer that makes up ever new metadata may not fill
// the memory. When it is reached, the cache begins anew.
const maxCache = 4 << 20

func (c *cache) lookup(data []byte, principal string) *peer {
	if len(data) > maxHeader {
		return nil
	}
	c.mu.RLock()
	p := c.peers[principal][string(data)]
	c.mu.RUnlock()
	if p != nil {
		return p
	}
	if p = decode(data, principal); p == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size += len(data) + len(principal); c.peers == nil || c.size > maxCache {
		c.peers = make(map[string]map[string]*peer)
		c.size = len(data) + len(principal)
	}
	m := c.peers[principal]
	if m == nil {
		m = make(map[string]*peer)
		c.peers[principal] = m
	}
	m[string(data)] = p
	return p
}

func decode(data []byte, principal string) *peer {
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
	if w == nil {
		return nil
	}
	w.Principal = principal
	return &peer{w, principal == s.GetFields()[fieldOnce].GetStringValue()}
}
