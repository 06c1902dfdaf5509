// Package derive keeps the objects that a front end computes objects of the model from, and tells what came out
// differently. The front ends of one model (Gateway API, Ingress) share it: each brings a pure computation of all its
// inputs together. What computes is pure; nothing here is safe for concurrent use.
package derive

import (
	"iter"
	"maps"
	"reflect"
	"slices"

	"weft.mesh/weft/model"
)

// Inputs are the objects by key.
type Inputs[V any] struct {
	objects map[model.Key]V
	leads   func(model.Kind) bool
	leading int
	dirty   bool
}

// NewInputs makes an empty one. Without an object of a kind that leads, the others mean nothing.
func NewInputs[V any](leads func(model.Kind) bool) *Inputs[V] {
	return &Inputs[V]{objects: map[model.Key]V{}, leads: leads}
}

// Put adds or replaces an object. One that is equal to what is there changes nothing.
func (in *Inputs[V]) Put(key model.Key, v V) {
	was, had := in.objects[key]
	if had && reflect.DeepEqual(was, v) {
		return
	}
	if !had && in.leads(key.Kind) {
		in.leading++
	}
	in.objects[key], in.dirty = v, true
}

// Delete removes an object, if it is there.
func (in *Inputs[V]) Delete(key model.Key) {
	if _, had := in.objects[key]; !had {
		return
	}
	delete(in.objects, key)
	if in.leads(key.Kind) {
		in.leading--
	}
	in.dirty = true
}

// Get returns an object; the zero value if it is not there.
func (in *Inputs[V]) Get(key model.Key) V { return in.objects[key] }

// Replace sets what is computed with besides the objects, and notes whether that is a change.
func Replace[V, S any](in *Inputs[V], at *S, s S) {
	if !reflect.DeepEqual(*at, s) {
		*at, in.dirty = s, true
	}
}

// Changed tells whether something has changed since it was last asked.
func (in *Inputs[V]) Changed() bool {
	was := in.dirty
	in.dirty = false
	return was
}

// Leading tells whether there is an object of a kind that leads.
func (in *Inputs[V]) Leading() bool { return in.leading > 0 }

// All goes over the objects by kind, namespace and name, so that a result is the same however they came.
func (in *Inputs[V]) All() iter.Seq2[model.Key, V] {
	return func(yield func(model.Key, V) bool) {
		for _, k := range slices.SortedFunc(maps.Keys(in.objects), model.CompareKeys) {
			if !yield(k, in.objects[k]) {
				return
			}
		}
	}
}

// Change is what came out differently for a key of the World; Objects is nil if nothing is there any more.
type Change struct {
	Key     model.Key
	Objects []model.Object
}

// Changes tells what of a result differs from the one before, sorted. Values that are equal keep their pointers: they
// are put into next.
func Changes(last, next map[model.Key][]model.Object) []Change {
	var out []Change
	Keep(last, next)
	for k, objs := range next {
		if was, ok := last[k]; !ok || !same(was, objs) {
			out = append(out, Change{k, objs})
		}
	}
	for k := range last {
		if _, ok := next[k]; !ok {
			out = append(out, Change{Key: k})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return model.CompareKeys(a.Key, b.Key) })
	return out
}

// same tells whether a list is the other one, and not only equal to it.
func same(a, b []model.Object) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Keep puts values of last into next where they are equal.
func Keep[V any](last, next map[model.Key]V) {
	for k, v := range next {
		if was, ok := last[k]; ok && reflect.DeepEqual(was, v) {
			next[k] = was
		}
	}
}
