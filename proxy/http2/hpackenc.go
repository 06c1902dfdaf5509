package http2

import (
	"encoding/binary"
	"math/bits"
)

// encoder encodes header blocks. It indexes a field when it sees it for the second
// time, so that values that are different each time do not push out those that come again. Strings
// are sent as they are: Huffman coding costs more CPU than the bytes it saves between neighbours.
//
// What is in the table is found by hash in arrays where the latest wins. Who makes fields collide only
// makes their encoding longer.
type encoder struct {
	table  table
	update bool        // the next block begins with a size update (RFC 7541 section 4.2)
	seen   [64]uint32  // hashes of fields that were sent once
	fields [128]uint32 // by hash: the number of the entry, see table.total
	names  [64]uint32  // the same by hash of the name
	lower  []byte      // scratch
}

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
	if hasUpper(name) {
		name = e.lowered(name)
	}
	nameHash := hashOf(name, 0)
	static, both := staticFind(name, value, nameHash)
	if both {
		return appendInt(b, 0x80, 7, static)
	}
	hash := hashOf(value, nameHash)
	slot := &e.fields[hash%uint64(len(e.fields))]
	if i := e.table.index(*slot); i != 0 {
		if n, v := e.table.at(i); string(v) == string(value) && string(n) == string(name) {
			return appendInt(b, 0x80, 7, staticLen+i)
		}
	}
	if sensitive(name) {
		return e.literal(b, 0x10, 4, static, name, value)
	}
	index := static
	if index == 0 {
		index = e.findName(name, nameHash)
	}
	seen := &e.seen[hash%uint64(len(e.seen))]
	if *seen != uint32(hash>>32) || len(name)+len(value)+entryOverhead > e.table.max/4 {
		*seen = uint32(hash >> 32)
		return e.literal(b, 0, 4, index, name, value)
	}
	b = e.literal(b, 0x40, 6, index, name, value)
	if e.table.add(name, value) {
		*slot = e.table.total
		e.names[nameHash%uint64(len(e.names))] = e.table.total
	}
	return b
}

// findName looks for an entry of the dynamic table with this name; 0: none.
func (e *encoder) findName(name []byte, hash uint64) int {
	if i := e.table.index(e.names[hash%uint64(len(e.names))]); i != 0 {
		if n, _ := e.table.at(i); string(n) == string(name) {
			return staticLen + i
		}
	}
	return 0
}

// hashOf mixes b into seed. It need not withstand attacks.
func hashOf(b []byte, seed uint64) uint64 {
	const k = 0x9e3779b97f4a7c15
	h := seed ^ uint64(len(b))*k
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64((h^binary.LittleEndian.Uint64(b))*k, 29)
	}
	var w uint64
	for i, c := range b {
		w |= uint64(c) << (8 * i)
	}
	h = (h ^ w) * k
	return h ^ h>>32
}

// hasUpper tells whether b has an upper-case letter. It looks at eight bytes at a time.
func hasUpper(b []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		low := x &^ highs
		if (low+(0x80-'A')*ones)&^(low+(0x7f-'Z')*ones)&^x&highs != 0 {
			return true
		}
	}
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			return true
		}
	}
	return false
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
	e.lower = append(e.lower[:0], name...)
	for i, c := range e.lower {
		if 'A' <= c && c <= 'Z' {
			e.lower[i] = c + 'a' - 'A'
		}
	}
	return e.lower
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
