package http2

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
)

// measured is a sink that keeps fields and what they count for (RFC 9113 section 6.5.2).
type measured struct {
	collect
	size int
	drop bool
}

func (m *measured) field(name, value []byte) bool {
	m.size += len(name) + len(value) + entryOverhead
	m.collect.field(name, value)
	return !m.drop
}

// FuzzDecoder holds the header decoder to the reference decoder in both directions, over two blocks
// of one connection, and to its limits: the table is never larger than allowed, no more is decoded
// than asked for, and no memory is taken beyond what was decoded. What was decoded is then encoded by
// ours and decoded by the reference again.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff}, []byte{0xbe}, uint16(1<<14))
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x40, 1, 'a', 1, 'b'}, []byte{0x20, 0xbe}, uint16(1<<14))
	f.Add([]byte{0x40, 1, 'a', 1, 'b', 0xbe, 0xbe, 0xbe}, []byte{0xbe, 0x7e, 1, 'c', 0xbf}, uint16(100))
	f.Add([]byte{0x3f, 0x05, 0x40, 1, 'a', 1, 'b'}, []byte{0x20, 0x3f, 0xe1, 0x1f, 0xbe}, uint16(200))
	f.Add([]byte{0x10, 1, 'a', 0x81, 0xff}, []byte{0x00, 0x82, 0x1f, 0xff, 1, 'b'}, uint16(200))
	f.Fuzz(func(t *testing.T, one, two []byte, most uint16) {
		dec := newDecoder(defaultTableSize)
		ref := hpack.NewDecoder(defaultTableSize, nil)
		for _, b := range [][]byte{one, two} {
			c := measured{drop: most%2 == 1}
			dec.arena = nil
			err := dec.decode(b, &c, int(most))
			if dec.table.size > dec.table.max || dec.table.max > defaultTableSize || cap(dec.table.data) > 8*defaultTableSize {
				t.Fatalf("table of %d bytes in %d, allowed %d", dec.table.size, cap(dec.table.data), dec.table.max)
			}
			if c.size > int(most) {
				t.Fatalf("%d bytes were handed out, %d asked for", c.size, most)
			}
			if len(dec.arena) > c.size+2*defaultTableSize+2*len(b) {
				t.Fatalf("%d bytes of memory for %d", len(dec.arena), c.size)
			}
			fs, rerr := ref.DecodeFull(b)
			var want []string
			size := 0
			for _, f := range fs {
				want = append(want, f.Name+"="+f.Value)
				size += int(f.Size())
			}
			if err != nil {
				switch {
				case errors.Is(err, errBomb):
					if rerr == nil && size <= int(most) {
						t.Fatalf("%x: %d bytes are too many for us, %d allowed", b, size, most)
					}
				case rerr == nil && !longInt(b) && !lateUpdate(b):
					t.Fatalf("%x: we refuse (%v) what the reference reads as %v", b, err, fs)
				}
				return
			}
			if rerr != nil {
				if strings.Contains(rerr.Error(), "dynamic table size update MUST") {
					return // it takes one update at the beginning, the RFC allows several
				}
				t.Fatalf("%x: we accept what the reference refuses: %v", b, rerr)
			}
			if d := cmp.Diff(want, c.got); d != "" {
				t.Fatal(d)
			}
			encodeAgain(t, fs, int(most))
		}
	})
}

// encodeAgain writes fields twice with a table of some size and reads them with the reference.
func encodeAgain(t *testing.T, fs []hpack.HeaderField, table int) {
	enc := newEncoder()
	ref := hpack.NewDecoder(defaultTableSize, nil)
	for range 3 {
		b := enc.begin(nil)
		for _, f := range fs {
			b = enc.field(b, []byte(f.Name), []byte(f.Value))
		}
		got, err := ref.DecodeFull(b)
		same := slices.EqualFunc(got, fs, func(x, y hpack.HeaderField) bool { return x.Name == asciiLower(y.Name) && x.Value == y.Value })
		if err != nil || !same {
			t.Fatalf("we encode %v as %x, which is %v (%v)", fs, b, got, err)
		}
		enc.limit(table)
		ref.SetAllowedMaxDynamicTableSize(uint32(table))
		ref.SetMaxDynamicTableSize(uint32(min(table, defaultTableSize)))
	}
}

// asciiLower is what our encoder makes of names, which ought to have come in lower case.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 32
		}
	}
	return string(b)
}

// walk reads a block as a list of representations, without a table: what each begins with, and how many bytes its integers take at most.
func walk(b []byte) (kinds []byte, longest int) {
	integer := func(prefix uint) int {
		mask := 1<<prefix - 1
		v, used := int(b[0])&mask, 1
		if v == mask {
			for shift := 0; used < len(b) && shift < 56; shift += 7 {
				c := b[used]
				used++
				v += int(c&0x7f) << shift
				if c < 0x80 {
					break
				}
			}
		}
		b, longest = b[used:], max(longest, used)
		return v
	}
	text := func() {
		if len(b) > 0 {
			n := integer(7)
			b = b[min(n, len(b)):]
		}
	}
	for len(b) > 0 {
		kind, prefix := byte(0), uint(4)
		for _, k := range []struct {
			bit    byte
			prefix uint
		}{{0x80, 7}, {0x40, 6}, {0x20, 5}} {
			if b[0]&k.bit != 0 {
				kind, prefix = k.bit, k.prefix
				break
			}
		}
		kinds = append(kinds, kind)
		i := integer(prefix)
		if kind&0xa0 == 0 {
			if i == 0 {
				text()
			}
			text()
		}
	}
	return kinds, longest
}

// lateUpdate tells whether b has a size update behind a field, which the reference forgives while its table is empty.
func lateUpdate(b []byte) bool {
	kinds, _ := walk(b)
	first := slices.IndexFunc(kinds, func(k byte) bool { return k != 0x20 })
	return first >= 0 && slices.Contains(kinds[first:], 0x20)
}

// longInt tells whether an integer takes more bytes than 28 bits need, which we refuse.
func longInt(b []byte) bool {
	_, longest := walk(b)
	return longest > 5
}
