// Package patch is how one resource is sent as its difference to the version that the
// client has: a route table of a thousand virtual hosts, one of which changed, takes
// a few hundred bytes. It is pure, and knows neither plane.
//
// A client that takes patches says so in its node's client_features ([Feature]); no
// other gets any. A patched resource has the name, the version and the place in the
// response that it would have whole; only its Any is of type [Type]. Both ends know a
// resource's version as the hash of its bytes, so that a patch which does not lead to
// exactly the bytes that the server has is found out.
package patch

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"

	"google.golang.org/protobuf/encoding/protowire"

	"weft.mesh/weft/xds"
)

const (
	// Feature is the client feature of those that take patches.
	Feature = "weft.mesh.patch.v1"
	// Type is the type URL of a patch.
	Type = "type.googleapis.com/weft.mesh.xds.v1.Patch"
	// MaxBytes bounds what a patch makes.
	MaxBytes = 16 << 20
)

// Fields of a patch. The new body is what inserts and copies give, one after the other.
const (
	fieldBase   protowire.Number = 1 // string: the version it applies to
	fieldInsert protowire.Number = 2 // bytes
	fieldCopy   protowire.Number = 3 // bytes: offset and length in the old body, two varints
)

// ErrBase is returned by [Apply] for a patch of another version than the one that is there: the whole resource is needed.
var ErrBase = errors.New("the patch is for another version")

// span is a part of a body: one field of the message, or several in a row.
type span struct{ from, to int }

// Make returns the patch from one version of a resource to another; nil if it would
// not spare at least half, or if one of them is not an encoded message.
func Make(from, to *xds.Resource) []byte {
	old, ok := split(from.Body)
	next, ok2 := split(to.Body)
	if !ok || !ok2 {
		return nil
	}
	same := func(o, n span) bool { return bytes.Equal(from.Body[o.from:o.to], to.Body[n.from:n.to]) }
	head := 0
	for head < min(len(old), len(next)) && same(old[head], next[head]) {
		head++
	}
	tail := 0
	for tail < min(len(old), len(next))-head && same(old[len(old)-1-tail], next[len(next)-1-tail]) {
		tail++
	}
	w := writer{to: to.Body, out: protowire.AppendString(protowire.AppendTag(nil, fieldBase, protowire.BytesType), from.Version)}
	for _, o := range old[:head] {
		w.copy(o)
	}
	at := places(from.Body, old[head:len(old)-tail])
	for _, n := range next[head : len(next)-tail] {
		if o, found := at.find(from.Body, to.Body[n.from:n.to], w.copied.to); found {
			w.copy(o)
		} else {
			w.insert(n)
		}
	}
	for _, o := range old[len(old)-tail:] {
		w.copy(o)
	}
	w.flush()
	if len(w.out) > len(to.Body)/2 {
		return nil
	}
	return w.out
}

// writer writes a patch; parts that follow one another become one.
type writer struct {
	to, out       []byte
	copied, fresh span // of the old and of the new body, not written yet; one of them is empty
}

func (w *writer) copy(o span) {
	if w.copied.empty() || w.copied.to != o.from {
		w.flush()
		w.copied.from = o.from
	}
	w.copied.to = o.to
}

func (w *writer) insert(n span) {
	if w.fresh.empty() {
		w.flush()
		w.fresh.from = n.from
	}
	w.fresh.to = n.to
}

func (w *writer) flush() {
	if c := w.copied; !c.empty() {
		pair := protowire.AppendVarint(protowire.AppendVarint(nil, uint64(c.from)), uint64(c.to-c.from))
		w.out = protowire.AppendBytes(protowire.AppendTag(w.out, fieldCopy, protowire.BytesType), pair)
	}
	if f := w.fresh; !f.empty() {
		w.out = protowire.AppendBytes(protowire.AppendTag(w.out, fieldInsert, protowire.BytesType), w.to[f.from:f.to])
	}
	w.copied, w.fresh = span{}, span{}
}

func (s span) empty() bool { return s.to == s.from }

// split lists the fields of a message, which follow one another without a gap.
func split(b []byte) ([]span, bool) {
	out := make([]span, 0, 64)
	for i := 0; i < len(b); {
		_, _, n := protowire.ConsumeField(b[i:])
		if n < 0 {
			return nil, false
		}
		out = append(out, span{i, i + n})
		i += n
	}
	return out, true
}

// index finds fields of a body by their content and by where they begin.
type index struct {
	byHash map[uint64]span
	starts map[int]span
}

var seed = maphash.MakeSeed()

func places(body []byte, fields []span) index {
	x := index{make(map[uint64]span, len(fields)), make(map[int]span, len(fields))}
	for _, f := range fields {
		x.byHash[maphash.Bytes(seed, body[f.from:f.to])] = f
		x.starts[f.from] = f
	}
	return x
}

// find returns a field with this content, the one at next if that is one.
func (x *index) find(body, content []byte, next int) (span, bool) {
	if f, ok := x.starts[next]; ok && bytes.Equal(body[f.from:f.to], content) {
		return f, true
	}
	f, ok := x.byHash[maphash.Bytes(seed, content)]
	return f, ok && bytes.Equal(body[f.from:f.to], content)
}

// Apply makes the body of the version that a patch leads to from that of an older one,
// which is not changed. It returns [ErrBase] for a patch of another version than from's; from may be nil.
func Apply(from *xds.Resource, p []byte, version string) ([]byte, error) {
	num, typ, n := protowire.ConsumeTag(p)
	if n < 0 || num != fieldBase || typ != protowire.BytesType {
		return nil, errors.New("a patch must begin with the version it applies to")
	}
	base, k := protowire.ConsumeString(p[n:])
	if k < 0 {
		return nil, fmt.Errorf("patch: %w", protowire.ParseError(k))
	}
	if from == nil || from.Version != base {
		return nil, ErrBase
	}
	out := make([]byte, 0, len(from.Body)+len(p))
	for p = p[n+k:]; len(p) > 0; {
		part, rest, err := step(from.Body, p)
		if err != nil {
			return nil, err
		}
		if len(out)+len(part) > MaxBytes {
			return nil, fmt.Errorf("patch: it makes more than %d bytes", MaxBytes)
		}
		out, p = append(out, part...), rest
	}
	if v := xds.Version(out); v != version {
		return nil, fmt.Errorf("patch: it leads to version %s, want %s", v, version)
	}
	return out, nil
}

// step reads one insert or copy: what it adds, and the rest of the patch.
func step(old, p []byte) (part, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(p)
	if n < 0 {
		return nil, nil, fmt.Errorf("patch: %w", protowire.ParseError(n))
	}
	if typ != protowire.BytesType || num != fieldInsert && num != fieldCopy {
		return nil, nil, fmt.Errorf("patch: unknown field %d", num)
	}
	v, k := protowire.ConsumeBytes(p[n:])
	if k < 0 {
		return nil, nil, fmt.Errorf("patch: %w", protowire.ParseError(k))
	}
	rest = p[n+k:]
	if num == fieldInsert {
		return v, rest, nil
	}
	from, i := protowire.ConsumeVarint(v)
	if i < 0 {
		return nil, nil, errors.New("patch: a copy without an offset")
	}
	size, j := protowire.ConsumeVarint(v[i:])
	if j < 0 || i+j != len(v) {
		return nil, nil, errors.New("patch: a copy wants an offset and a length")
	}
	if from > uint64(len(old)) || size > uint64(len(old))-from {
		return nil, nil, fmt.Errorf("patch: copy of %d bytes at %d of %d", size, from, len(old))
	}
	return old[from : from+size], rest, nil
}
