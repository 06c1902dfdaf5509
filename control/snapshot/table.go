package snapshot

import (
	"hash/maphash"
	"iter"
	"reflect"
)

// shardCount bounds what one change copies: a table of 10,000 entries has
// shards of about 80.
const shardCount = 128

// seed is shared by all tables; it only spreads keys.
var seed = maphash.MakeSeed()

// table is an immutable map. An [editor] makes the next version, which shares
// every shard that was not touched. The zero table is empty.
type table[K comparable, V any] struct {
	shards *[shardCount]map[K]V
	n      int
}

func shardOf[K comparable](k K) int { return int(maphash.Comparable(seed, k) % shardCount) }

func (t table[K, V]) get(k K) (V, bool) {
	if t.shards == nil {
		var zero V
		return zero, false
	}
	v, ok := t.shards[shardOf(k)][k]
	return v, ok
}

// at is get without the second value.
func (t table[K, V]) at(k K) V {
	v, _ := t.get(k)
	return v
}

func (t table[K, V]) len() int { return t.n }

// all visits every entry in no particular order.
func (t table[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if t.shards == nil {
			return
		}
		for _, s := range t.shards {
			for k, v := range s {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// since visits the keys under which two versions have something else. What they share is not looked at.
func since[K, V comparable](t, old table[K, V]) iter.Seq[K] {
	return func(yield func(K) bool) {
		for i := range shardCount {
			now, was := t.shard(i), old.shard(i)
			if reflect.ValueOf(now).Pointer() == reflect.ValueOf(was).Pointer() {
				continue
			}
			for k, v := range now {
				if o, ok := was[k]; (!ok || o != v) && !yield(k) {
					return
				}
			}
			for k := range was {
				if _, ok := now[k]; !ok && !yield(k) {
					return
				}
			}
		}
	}
}

func (t table[K, V]) shard(i int) map[K]V {
	if t.shards == nil {
		return nil
	}
	return t.shards[i]
}

// editor changes a copy of a table, shard by shard. Not safe for concurrent use.
type editor[K comparable, V any] struct {
	t     table[K, V]
	owned [shardCount]bool
	fresh bool // the array of shards is ours
}

func edit[K comparable, V any](t table[K, V]) *editor[K, V] { return &editor[K, V]{t: t} }

func (e *editor[K, V]) get(k K) (V, bool) { return e.t.get(k) }

func (e *editor[K, V]) at(k K) V { return e.t.at(k) }

func (e *editor[K, V]) own(i int) map[K]V {
	if !e.fresh {
		var s [shardCount]map[K]V
		if e.t.shards != nil {
			s = *e.t.shards
		}
		e.t.shards, e.fresh = &s, true
	}
	if !e.owned[i] {
		old := e.t.shards[i]
		m := make(map[K]V, len(old)+1)
		for k, v := range old {
			m[k] = v
		}
		e.t.shards[i], e.owned[i] = m, true
	}
	return e.t.shards[i]
}

func (e *editor[K, V]) set(k K, v V) {
	m := e.own(shardOf(k))
	if _, ok := m[k]; !ok {
		e.t.n++
	}
	m[k] = v
}

func (e *editor[K, V]) delete(k K) {
	if _, ok := e.t.get(k); !ok {
		return
	}
	delete(e.own(shardOf(k)), k)
	e.t.n--
}

// done returns the new version; the editor must not be used after it.
func (e *editor[K, V]) done() table[K, V] { return e.t }
