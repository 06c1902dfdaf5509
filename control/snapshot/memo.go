package snapshot

import (
	"sync"

	"weft.mesh/weft/model"
)

// memo keeps answers worked out on demand. It is shared by all Worlds that
// agree on the inputs, and bounded by their number of keys.
type memo[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
}

func newMemo[K comparable, V any]() *memo[K, V] { return &memo[K, V]{m: map[K]V{}} }

// of returns the answer for k, from make if it is not known. Two callers may
// both work it out; the first answer is kept.
func (c *memo[K, V]) of(k K, make func() V) V {
	c.mu.RLock()
	v, ok := c.m[k]
	c.mu.RUnlock()
	if ok {
		return v
	}
	v = make()
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.m[k]; ok {
		return old
	}
	c.m[k] = v
	return v
}

// derived are answers worked out on demand and kept while their inputs stay.
type derived struct {
	visible  *memo[string, []*Service]          // inputs: services
	rules    *memo[ruleQuery, []*Rule]          // inputs: rules
	routeSet *memo[routeQuery, *model.RouteSet] // inputs: routes
}

func newDerived() derived {
	return derived{newMemo[string, []*Service](), newMemo[ruleQuery, []*Rule](), newMemo[routeQuery, *model.RouteSet]()}
}
