package kube

import (
	"fmt"
	"maps"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// installed is the names of custom resource definitions, as the store of a reflector.
type installed struct {
	mu     sync.Mutex // protects the following
	names  map[string]bool
	listed bool
	wake   chan struct{} // 1 slot: something changed
}

func (x *installed) snapshot() (names map[string]bool, listed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.names), x.listed
}

func (x *installed) edit(o any, f func(name string)) error {
	m, ok := o.(metav1.Object)
	if !ok {
		return fmt.Errorf("source kubernetes: %s: unexpected %T", crds, o)
	}
	x.mu.Lock()
	f(m.GetName())
	x.mu.Unlock()
	x.signal()
	return nil
}

func (x *installed) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Add implements cache.ReflectorStore.
func (x *installed) Add(o any) error { return x.edit(o, func(n string) { x.names[n] = true }) }

// Update implements cache.ReflectorStore: a definition may have become established.
func (x *installed) Update(o any) error { return x.Add(o) }

// Delete implements cache.ReflectorStore.
func (x *installed) Delete(o any) error { return x.edit(o, func(n string) { delete(x.names, n) }) }

// Resync implements cache.ReflectorStore.
func (x *installed) Resync() error { return nil }

// Replace implements cache.ReflectorStore.
func (x *installed) Replace(list []any, _ string) error {
	names := make(map[string]bool, len(list))
	for _, o := range list {
		m, ok := o.(metav1.Object)
		if !ok {
			return fmt.Errorf("source kubernetes: %s: unexpected %T", crds, o)
		}
		names[m.GetName()] = true
	}
	x.mu.Lock()
	x.names, x.listed = names, true
	x.mu.Unlock()
	x.signal()
	return nil
}
