package http2

// entryOverhead is what RFC 7541 section 4.1 adds to the size of each entry.
const entryOverhead = 32

// table is a dynamic table. Its bytes lie in one piece of memory that is reused.
type table struct {
	data  []byte
	ents  []entry // ents[head:], the newest last
	head  int
	size  int // as the RFC counts
	max   int
	total uint32 // number of the newest entry: numbers name entries across evictions
}

type entry struct{ off, name, value int }

func (t *table) len() int { return len(t.ents) - t.head }

// at returns the entry with dynamic index i: 1 is the newest. The bytes are valid until the next add.
func (t *table) at(i int) (name, value []byte) {
	e := &t.ents[len(t.ents)-i]
	return t.data[e.off : e.off+e.name], t.data[e.off+e.name : e.off+e.name+e.value]
}

// index is the dynamic index of the entry with a number; 0 if it is gone, or for 0.
func (t *table) index(number uint32) int {
	if i := t.total - number; number != 0 && i < uint32(t.len()) {
		return int(i) + 1
	}
	return 0
}

func (t *table) resize(max int) {
	t.max = max
	t.evict(0)
}

// evict makes room for need.
func (t *table) evict(need int) {
	for t.size+need > t.max && t.len() > 0 {
		e := &t.ents[t.head]
		t.size -= e.name + e.value + entryOverhead
		t.head++
	}
	if t.len() == 0 {
		t.ents, t.head, t.data = t.ents[:0], 0, t.data[:0]
	}
}

// add appends an entry, whose bytes must not lie in the table. One that is larger than the table empties it, and is not added.
func (t *table) add(name, value []byte) bool {
	n := len(name) + len(value)
	t.evict(n + entryOverhead)
	if n+entryOverhead > t.max {
		return false
	}
	if len(t.data)+n > cap(t.data) || t.head > 64 {
		t.compact(n)
	}
	t.ents = append(t.ents, entry{off: len(t.data), name: len(name), value: len(value)})
	t.data = append(append(t.data, name...), value...)
	t.size += n + entryOverhead
	if t.total++; t.total == 0 {
		t.total = 1 // 0 names no entry; a number that comes again is compared by content
	}
	return true
}

// compact moves what is alive to the front and makes sure that n bytes fit behind it.
func (t *table) compact(n int) {
	live := t.ents[t.head:]
	data := t.data[:0]
	if len(live) > 0 {
		data = t.data[live[0].off:]
	}
	to := t.data[:0]
	if len(data)+n > cap(to) {
		to = make([]byte, 0, min(2*(len(data)+n)+256, 2*t.max+n))
	}
	to = append(to, data...) // moves to the front if the memory is the same
	if len(live) > 0 {
		first := live[0].off
		for i := range live {
			live[i].off -= first
		}
	}
	t.data = to
	t.ents = t.ents[:copy(t.ents, live)]
	t.head = 0
}
