package xdsserver

import (
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"
	"weak"
)

// nameSet is the names that a client is subscribed to: sorted, distinct, immutable.
// Clients with the same names have the same set, so that a thousand sidecars
// which ask for the same thousand endpoints cost one list.
type nameSet struct{ list []string }

// noNames is not nil: a nil list would ask for everything.
var noNames = &nameSet{list: []string{}}

func (n *nameSet) has(name string) bool {
	_, ok := slices.BinarySearch(n.list, name)
	return ok
}

// edit lists the names with some more and without others.
func (n *nameSet) edit(add, drop []string) []string {
	add = slices.Compact(slices.Sorted(slices.Values(add)))
	drop = slices.Sorted(slices.Values(drop))
	out := make([]string, 0, len(n.list)+len(add))
	i := 0
	for _, a := range add {
		for i < len(n.list) && n.list[i] < a {
			out = append(out, n.list[i])
			i++
		}
		if i < len(n.list) && n.list[i] == a {
			i++
		}
		out = append(out, a)
	}
	out = append(out, n.list[i:]...)
	if len(drop) == 0 {
		return out
	}
	return slices.DeleteFunc(out, func(name string) bool {
		_, ok := slices.BinarySearch(drop, name)
		return ok
	})
}

// nameSets finds the set of a list. It holds sets weakly: one that no stream has
// is gone. Safe for concurrent use; nil makes each set anew.
type nameSets struct {
	seed maphash.Seed
	mu   sync.Mutex // protects m
	m    map[uint64]weak.Pointer[nameSet]
}

// newNameSet copies names: those of a request are not there any more after it.
func newNameSet(list []string) *nameSet {
	own := make([]string, len(list))
	for i, n := range list {
		own[i] = strings.Clone(n)
	}
	return &nameSet{own}
}

func newNameSets() *nameSets {
	return &nameSets{seed: maphash.MakeSeed(), m: map[uint64]weak.Pointer[nameSet]{}}
}

// of returns the set of sorted, distinct names. They are cloned if the set is new.
func (s *nameSets) of(list []string) *nameSet {
	if len(list) == 0 {
		return noNames
	}
	if s == nil {
		return newNameSet(list)
	}
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, n := range list {
		h.WriteString(n)
		h.WriteByte(0)
	}
	sum := h.Sum64()
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.m[sum].Value(); have != nil {
		if slices.Equal(have.list, list) {
			return have
		}
		return newNameSet(list) // the same hash by chance
	}
	set := newNameSet(list)
	s.m[sum] = weak.Make(set)
	runtime.AddCleanup(set, s.forget, sum)
	return set
}

// forget drops the entry of a set that is gone.
func (s *nameSets) forget(sum uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[sum].Value() == nil {
		delete(s.m, sum)
	}
}
