package http1

import (
	"io"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// framing is how the end of a body is found.
type framing uint8

const (
	framedNone framing = iota
	framedLength
	framedChunked
	framedClose // until the peer ends its side: responses, and raw streams after an upgrade
)

// input is what has been read from a connection: the current head stays at the
// front of head, because its fields alias it; the body is what follows in head and then spill.
type input struct {
	head  netio.Buffer
	spill netio.Buffer
	off   int // into head: where what was not yet consumed of the current message begins
	full  int // how many reads into spill in a row have brought a buffer's fill
}

// wideAfter is how many full reads make a body one that is worth a wide buffer.
const wideAfter = 2

// fill reads more of a body, all of whose bytes so far were consumed.
func (in *input) fill(c *netio.Conn) error {
	in.spill.SetWide(in.full >= wideAfter)
	err := c.Fill(&in.spill)
	if in.spill.Len() >= netio.BufferSize {
		in.full++
	} else {
		in.full = 0
	}
	return err
}

// rest is what has arrived and was not consumed.
func (in *input) rest() []byte {
	if b := in.head.Bytes(); in.off < len(b) {
		return b[in.off:]
	}
	return in.spill.Bytes()
}

func (in *input) consume(n int) {
	if in.off < in.head.Len() {
		in.off += n
	} else {
		in.spill.Consume(n)
	}
}

// next drops the current message; what was read beyond it becomes the front of head.
func (in *input) next() {
	if in.off < in.head.Len() {
		in.head.Consume(in.off)
	} else {
		in.head.Release()
		if in.spill.Len() > 0 {
			in.head.Replace(&in.spill)
		}
	}
	in.spill.Release()
	in.off, in.full = 0, 0
}

func (in *input) release() {
	in.head.Release()
	in.spill.Release()
	in.off, in.full = 0, 0
}

// body reads one message's body. Reader's goroutine only.
type body struct {
	framing framing
	left    int64 // of framedLength
	chunks  chunks
	done    bool
	started bool   // take was called
	whole   []byte // decoded in place by buffered, with wholeOK
	wholeOK bool

	lines    []byte // trailer lines as received; memory is kept
	trailers stream.Fields
}

func (b *body) reset(f framing, length int64, maxTrailer int) {
	if f == framedLength && length == 0 {
		f = framedNone
	}
	lines, trailers := b.lines[:0], b.trailers
	trailers.Reset()
	*b = body{framing: f, left: length, lines: lines, trailers: trailers}
	b.chunks.max = maxTrailer
	b.done = f == framedNone
}

// take returns the next piece of what has arrived. Nothing and not done: more must be read.
func (b *body) take(in *input, maxFields int) ([]byte, *protoError) {
	b.started = true
	if b.wholeOK && !b.done {
		b.done = true
		return b.whole, nil
	}
	for !b.done {
		rest := in.rest()
		if len(rest) == 0 {
			return nil, nil
		}
		switch b.framing {
		case framedLength:
			n := int(min(b.left, int64(len(rest))))
			b.left -= int64(n)
			b.done = b.left == 0
			in.consume(n)
			return rest[:n], nil
		case framedClose:
			in.consume(len(rest))
			return rest, nil
		default:
			data, err := b.takeChunk(in, rest, maxFields)
			if err != nil || len(data) > 0 {
				return data, err
			}
		}
	}
	return nil, nil
}

func (b *body) takeChunk(in *input, rest []byte, maxFields int) ([]byte, *protoError) {
	data, line, used, err := b.chunks.step(rest)
	if err != nil {
		return nil, err
	}
	in.consume(used)
	b.lines = append(b.lines, line...)
	if b.chunks.state == chunkDone {
		b.done = true
		if len(b.lines) > 0 {
			return nil, parseTrailers(b.lines, &b.trailers, maxFields)
		}
	}
	return data, nil
}

// ready tells whether take returns something, or the end, without more being read.
func (b *body) ready(in *input) bool {
	rest := in.rest()
	if b.done || b.wholeOK || b.framing != framedChunked {
		return b.done || b.wholeOK || len(rest) > 0
	}
	d := b.chunks // look ahead: what is left may be no more than the end of a chunk
	for len(rest) > 0 {
		data, _, used, err := d.step(rest)
		if err != nil || len(data) > 0 || d.state == chunkDone {
			return true
		}
		rest = rest[used:]
	}
	return false
}

// end is called when the peer has ended its side: is that the end of the body?
func (b *body) end() error {
	if b.framing == framedClose {
		b.done = true
		return io.EOF
	}
	return io.ErrUnexpectedEOF
}

// buffered returns the whole body if it has arrived. A chunked one is decoded in
// place, which is possible because decoding only makes it shorter.
func (b *body) buffered(in *input) ([]byte, bool) {
	if b.wholeOK {
		return b.whole, true
	}
	rest := in.rest()
	switch {
	case b.framing == framedNone:
		return nil, true
	case b.started:
		return nil, false
	case b.framing == framedLength && int64(len(rest)) >= b.left:
		b.whole = rest[:b.left]
		in.consume(len(b.whole))
	case b.framing == framedChunked:
		used, ok := b.decodeInPlace(rest, false)
		if !ok {
			return nil, false
		}
		_, _ = b.decodeInPlace(rest, true)
		in.consume(used)
	default:
		return nil, false
	}
	b.wholeOK = true
	return b.whole, true
}

// decodeInPlace runs the decoder over rest; only if move is set does it change anything. A body
// with trailers or errors is left to the ordinary way.
func (b *body) decodeInPlace(rest []byte, move bool) (used int, ok bool) {
	d, n := b.chunks, 0
	for used < len(rest) && d.state != chunkDone {
		data, line, u, err := d.step(rest[used:])
		if err != nil || len(line) > 0 {
			return 0, false
		}
		if move {
			copy(rest[n:], data)
		}
		n += len(data)
		used += u
	}
	if move {
		b.whole = rest[:n]
	}
	return used, d.state == chunkDone
}
