package http2

import (
	"errors"

	"golang.org/x/net/http2/hpack"
)

// errCompression is a header block that cannot be decoded: COMPRESSION_ERROR for the connection.
var errCompression = errors.New("header block cannot be decoded")

// errBomb is a block that decodes to many times what is allowed: an attack on our time, not a large request.
var errBomb = errors.New("header list is many times too large")

// bombFactor is how many times the bound of a header list is decoded only to keep the table in step.
const bombFactor = 8

// decoder decodes header blocks. The fields it hands out lie in arena, which the caller gives and takes.
type decoder struct {
	table   table
	allowed int    // bound of table size updates: our SETTINGS_HEADER_TABLE_SIZE
	arena   []byte // append only
}

func newDecoder(size int) decoder { return decoder{table: table{max: size}, allowed: size} }

// Write implements [io.Writer] for the Huffman decoder.
func (d *decoder) Write(p []byte) (int, error) {
	d.arena = append(d.arena, p...)
	return len(p), nil
}

// fieldSink takes fields one by one. With keep false the bytes of the
// field are dropped again, after it has been told.
type fieldSink interface {
	field(name, value []byte) (keep bool)
}

// decode decodes a whole block, of at most most bytes as RFC 9113 section 6.5.2 counts them.
func (d *decoder) decode(b []byte, sink fieldSink, most int) error {
	for first := true; len(b) > 0; {
		mark := len(d.arena)
		var name, value []byte
		var err error
		switch c := b[0]; {
		case c&0x80 != 0:
			name, value, b, err = d.indexed(b)
		case c&0xc0 == 0x40:
			if name, value, b, err = d.literal(b, 6); err == nil {
				d.table.add(name, value)
			}
		case c&0xe0 == 0x20:
			if !first { // RFC 7541 section 4.2: at the beginning of a block only
				return errCompression
			}
			if b, err = d.sizeUpdate(b); err != nil {
				return err
			}
			continue
		default: // without indexing, or never indexed
			name, value, b, err = d.literal(b, 4)
		}
		if err != nil {
			return err
		}
		first = false
		if most -= len(name) + len(value) + entryOverhead; most < 0 {
			return errBomb
		}
		if !sink.field(name, value) {
			d.arena = d.arena[:mark]
		}
	}
	return nil
}

func (d *decoder) sizeUpdate(b []byte) ([]byte, error) {
	n, b, ok := readInt(b, 5)
	if !ok || n > d.allowed {
		return nil, errCompression
	}
	d.table.resize(n)
	return b, nil
}

// lookup returns the field with index i. What it returns from the dynamic table is copied.
func (d *decoder) lookup(i int) (name, value []byte, ok bool) {
	switch {
	case i == 0:
		return nil, nil, false
	case i <= staticLen:
		f := &staticFields[i-1]
		return stringBytes(f[0]), stringBytes(f[1]), true
	case i-staticLen <= d.table.len():
		n, v := d.table.at(i - staticLen)
		return d.copy(n), d.copy(v), true
	}
	return nil, nil, false
}

func (d *decoder) copy(p []byte) []byte {
	at := len(d.arena)
	d.arena = append(d.arena, p...)
	return d.arena[at:len(d.arena):len(d.arena)]
}

func (d *decoder) indexed(b []byte) (name, value, rest []byte, err error) {
	i, rest, ok := readInt(b, 7)
	if ok {
		name, value, ok = d.lookup(i)
	}
	if !ok {
		return nil, nil, nil, errCompression
	}
	return name, value, rest, nil
}

func (d *decoder) literal(b []byte, prefix uint) (name, value, rest []byte, err error) {
	i, rest, ok := readInt(b, prefix)
	if !ok {
		return nil, nil, nil, errCompression
	}
	if i == 0 {
		name, rest, err = d.str(rest)
	} else if name, _, ok = d.lookup(i); !ok {
		err = errCompression
	}
	if err != nil {
		return nil, nil, nil, err
	}
	value, rest, err = d.str(rest)
	return name, value, rest, err
}

func (d *decoder) str(b []byte) (s, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, errCompression
	}
	huffman := b[0]&0x80 != 0
	n, b, ok := readInt(b, 7)
	if !ok || n > len(b) {
		return nil, nil, errCompression
	}
	if !huffman {
		return d.copy(b[:n]), b[n:], nil
	}
	at := len(d.arena)
	if _, err := hpack.HuffmanDecode(d, b[:n]); err != nil {
		return nil, nil, errCompression
	}
	return d.arena[at:len(d.arena):len(d.arena)], b[n:], nil
}

// readInt reads an integer with a prefix of n bits (RFC 7541 section 5.1), of at most 28 bits.
func readInt(b []byte, n uint) (int, []byte, bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	mask := 1<<n - 1
	v := int(b[0]) & mask
	b = b[1:]
	if v < mask {
		return v, b, true
	}
	for shift := uint(0); shift <= 21 && len(b) > 0; shift += 7 {
		c := b[0]
		b = b[1:]
		v += int(c&0x7f) << shift
		if c&0x80 == 0 {
			return v, b, true
		}
	}
	return 0, nil, false
}
