package translate

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/xds"
)

// cache keeps answers by their inputs over the Snapshots of one line. A key
// holds pointers into Worlds, so entries that no Snapshot asked for in a while
// are dropped. Safe for concurrent use.
type cache struct {
	mu   sync.Mutex
	gen  uint64
	live int // entries after the last sweep
	m    map[any]*cached

	contents contents
	reached  reached
}

type cached struct {
	once  sync.Once
	value any
	used  uint64
}

const (
	keepGenerations = 16   // Snapshots for which an unused answer is kept
	sweepSlack      = 4096 // entries that may gather before a sweep
)

func newCache() *cache { return &cache{m: map[any]*cached{}} }

// remember returns the answer for key, made once. The type of the key must be
// one that is used for this kind of answer only.
func remember[V any](c *cache, key any, make func() V) V {
	c.mu.Lock()
	e := c.m[key]
	if e == nil {
		e = &cached{}
		c.m[key] = e
	}
	e.used = c.gen
	c.mu.Unlock()
	e.once.Do(func() { e.value = make() })
	return e.value.(V)
}

// inputs are pointers and strings that an answer was made from.
type inputs []any

func (a inputs) equal(b inputs) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// versioned is the latest answer under a name, with its inputs.
type versioned[V any] struct {
	mu    sync.Mutex
	in    inputs
	value V
	set   bool
}

// latest returns the answer under key if it was made from the same inputs,
// else makes it. For answers with too many inputs for a key.
func latest[V any](c *cache, key any, in inputs, make func() V) V {
	return latestFrom(c, key, in, func(V) V { return make() })
}

// latestFrom is latest for answers that are made from the ones before, the zero value at first.
func latestFrom[V any](c *cache, key any, in inputs, make func(before V) V) V {
	v := remember(c, key, func() *versioned[V] { return &versioned[V]{} })
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.set || !v.in.equal(in) {
		v.value, v.in, v.set = make(v.value), in, true
	}
	return v.value
}

// next begins a generation and drops what was not used for a while.
func (c *cache) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	if len(c.m) <= 2*c.live+sweepSlack {
		return
	}
	for k, e := range c.m {
		if e.used+keepGenerations < c.gen {
			delete(c.m, k)
		}
	}
	c.live = len(c.m)
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.m)
}

// resource encodes a message. Equal content is the same resource, also where it
// was made from other inputs.
func (s *Snapshot) resource(typeURL, name string, m proto.Message) *xds.Resource {
	return s.encoded(typeURL, name, marshal(m))
}

func (s *Snapshot) encoded(typeURL, name string, body []byte) *xds.Resource {
	return s.cache.contents.one(xds.NewResource(typeURL, name, body))
}
