package http2

import "hash/maphash"

// encoder encodes header blocks. It indexes a field when it sees it for the second
// time, so that values that are different each time do not push out those that come again. Strings
// are sent as they are: Huffman coding costs more CPU than the bytes it saves between neighbours.
type encoder struct {
	table  table
	update bool       // the next block begins with a size update (RFC 7541 section 4.2)
	seen   [64]uint32 // hashes of fields that were sent once
	lower  []byte     // scratch
}

var hashSeed = maphash.MakeSeed()

func newEncoder() encoder { return encoder{table: table{max: defaultTableSize}} }

// defaultTableSize is SETTINGS_HEADER_TABLE_SIZE's initial value, and as much as we use.
const defaultTableSize = 4096

// limit follows the peer's SETTINGS_HEADER_TABLE_SIZE. Between two blocks it only shrinks: a table
// that went down and up would need two updates, which some decoders take for an error.
func (e *encoder) limit(n int) {
	n = min(n, defaultTableSize)
	if n == e.table.max || e.update && n > e.table.max {
		return
	}
	e.update = true
	e.table.resize(n)
}

// begin appends what must precede the first field of a block.
func (e *encoder) begin(b []byte) []byte {
	if e.update {
		b = appendInt(b, 0x20, 5, e.table.max)
		e.update = false
	}
	return b
}

// field appends one field; its name is lower-cased.
func (e *encoder) field(b, name, value []byte) []byte {
	name = e.lowered(name)
	static, both := staticFind(name, value)
	if both {
		return appendInt(b, 0x80, 7, static)
	}
	if sensitive(name) {
		return e.literal(b, 0x10, 4, static, name, value)
	}
	nameHash := maphash.Bytes(hashSeed, name)
	hash := nameHash*31 + maphash.Bytes(hashSeed, value)
	index, both := e.find(name, value, hash, nameHash, static == 0)
	if both {
		return appendInt(b, 0x80, 7, index)
	}
	if static != 0 {
		index = static
	}
	slot := &e.seen[hash%uint64(len(e.seen))]
	if *slot != uint32(hash>>32) || len(name)+len(value)+entryOverhead > e.table.max/4 {
		*slot = uint32(hash >> 32)
		return e.literal(b, 0, 4, index, name, value)
	}
	b = e.literal(b, 0x40, 6, index, name, value)
	e.table.add(name, value, hash, nameHash)
	return b
}

// find looks in the dynamic table, the newest first.
func (e *encoder) find(name, value []byte, hash, nameHash uint64, wantName bool) (index int, both bool) {
	t := &e.table
	for i := len(t.ents) - 1; i >= t.head; i-- {
		c := &t.ents[i]
		if c.hash == hash {
			n, v := t.at(len(t.ents) - i)
			if string(n) == string(name) && string(v) == string(value) {
				return staticLen + len(t.ents) - i, true
			}
		}
		if wantName && index == 0 && c.nameHash == nameHash {
			if n, _ := t.at(len(t.ents) - i); string(n) == string(name) {
				index = staticLen + len(t.ents) - i
			}
		}
	}
	return index, false
}

// sensitive fields are never indexed, here or further on (RFC 7541 section 7.1.3).
func sensitive(name []byte) bool {
	switch string(name) {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return true
	}
	return false
}

func (e *encoder) lowered(name []byte) []byte {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			e.lower = append(e.lower[:0], name...)
			for ; i < len(e.lower); i++ {
				if c := e.lower[i]; 'A' <= c && c <= 'Z' {
					e.lower[i] = c + 'a' - 'A'
				}
			}
			return e.lower
		}
	}
	return name
}

func (e *encoder) literal(b []byte, first byte, prefix uint, index int, name, value []byte) []byte {
	b = appendInt(b, first, prefix, index)
	if index == 0 {
		b = append(appendInt(b, 0, 7, len(name)), name...)
	}
	return append(appendInt(b, 0, 7, len(value)), value...)
}

func appendInt(b []byte, first byte, prefix uint, n int) []byte {
	mask := 1<<prefix - 1
	if n < mask {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(mask))
	for n -= mask; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
