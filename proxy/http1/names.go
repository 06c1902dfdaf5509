package http1

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"

	"weft.mesh/weft/proxy/stream"
)

// names are the field names of a head, in their order. The next head has nearly always the same ones, and comparing a name
// costs less than looking at each of its bytes. Only names are remembered, no values: how long a head takes to
// parse tells nothing about what others send. It does not change once it is made.
type names struct {
	n    int
	list [maxNames]nameSeen
}

const maxNames = 24 // of a head; those behind are looked at

type nameSeen struct {
	text [30]byte // "name: "
	n    uint8    // of text
	kind known
}

// match finds the name of the line that b begins with, at or next to where the last one was found. A head
// with one more field than the remembered one, or one less, is still recognised.
func (m *names) match(b []byte, at *int) *nameSeen {
	if m == nil {
		return nil
	}
	for i := *at; i < m.n && i < *at+2; i++ {
		if e := &m.list[i]; len(b) > int(e.n) && string(b[:e.n]) == string(e.text[:e.n]) {
			*at = i + 1
			return e
		}
	}
	return nil
}

// namesOf remembers the names in the lines of a head that was found sound.
func namesOf(lines []byte) *names {
	m := &names{}
	for len(lines) > 2 && m.n < maxNames {
		end := bytes.IndexByte(lines, '\n') + 1
		colon := stream.TokenLen(lines)
		if e := &m.list[m.n]; colon+2 <= len(e.text) && lines[colon+1] == ' ' {
			e.n = uint8(copy(e.text[:], lines[:colon+2]))
			e.kind = lookup(lines[:colon])
			m.n++
		}
		lines = lines[end:]
	}
	return m
}

// memory holds the names of the last heads of one kind, by how their fields begin, so that different clients need not push each
// other out. Safe for concurrent use.
type memory [8]atomic.Pointer[names]

var requestNames, responseNames memory

// place is where the names of a head with these lines are.
func (m *memory) place(lines []byte) *atomic.Pointer[names] {
	if len(lines) < 4 {
		return &m[0]
	}
	return &m[(lines[0]^lines[3]<<1^lines[3]>>4)&7]
}

// learnEvery is how many heads that are not as remembered pass until one of them is remembered.
const learnEvery = 32

// learn remembers a head's names, if nothing is remembered in its place, or now and then.
func learn(p *atomic.Pointer[names], lines []byte) {
	if p.Load() == nil || rand.Uint32N(learnEvery) == 0 {
		p.Store(namesOf(lines))
	}
}
