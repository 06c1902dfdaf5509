package kube

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// objects is a store of few objects that says when it has changed.
type objects struct {
	slim func(*unstructured.Unstructured) *unstructured.Unstructured // what to keep; nil: all

	mu     sync.Mutex // protects the following
	all    map[string]*unstructured.Unstructured
	synced bool
	wake   chan struct{} // 1 slot
}

func newObjects(slim func(*unstructured.Unstructured) *unstructured.Unstructured) *objects {
	return &objects{slim: slim, all: map[string]*unstructured.Unstructured{}, wake: make(chan struct{}, 1)}
}

// list returns what there is, by namespace and name; ok is false before anything was read.
func (s *objects) list() (all []*unstructured.Unstructured, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(s.all)) {
		all = append(all, s.all[k])
	}
	return all, s.synced
}

// get returns one object, by "namespace/name".
func (s *objects) get(key string) (*unstructured.Unstructured, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.all[key]
	return u, ok
}

// ready tells that all there is was read once.
func (s *objects) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced
}

func (s *objects) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *objects) edit(o any, f func(key string, u *unstructured.Unstructured)) error {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("kubernetes: unexpected %T", o)
	}
	key := u.GetNamespace() + "/" + u.GetName()
	if s.slim != nil {
		u = s.slim(u)
	}
	s.mu.Lock()
	f(key, u)
	s.mu.Unlock()
	s.signal()
	return nil
}

// Add implements cache.ReflectorStore.
func (s *objects) Add(o any) error {
	return s.edit(o, func(k string, u *unstructured.Unstructured) { s.all[k] = u })
}

// Update implements cache.ReflectorStore.
func (s *objects) Update(o any) error { return s.Add(o) }

// Delete implements cache.ReflectorStore.
func (s *objects) Delete(o any) error {
	return s.edit(o, func(k string, _ *unstructured.Unstructured) { delete(s.all, k) })
}

// Resync implements cache.ReflectorStore.
func (s *objects) Resync() error { return nil }

// Replace implements cache.ReflectorStore.
func (s *objects) Replace(list []any, _ string) error {
	all := make(map[string]*unstructured.Unstructured, len(list))
	for _, o := range list {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("kubernetes: unexpected %T", o)
		}
		key := u.GetNamespace() + "/" + u.GetName()
		if s.slim != nil {
			u = s.slim(u)
		}
		all[key] = u
	}
	s.mu.Lock()
	s.all, s.synced = all, true
	s.mu.Unlock()
	s.signal()
	return nil
}
