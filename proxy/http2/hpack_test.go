package http2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
)

// collect is a sink that copies what it gets.
type collect struct{ got []string }

func (c *collect) field(name, value []byte) bool {
	c.got = append(c.got, string(name)+"="+string(value))
	return true
}

func TestStaticTableIsTheRFCs(t *testing.T) {
	for i := range staticLen {
		dec := hpack.NewDecoder(0, nil)
		fs, err := dec.DecodeFull(appendInt(nil, 0x80, 7, i+1))
		if err != nil || fs[0].Name != staticFields[i][0] || fs[0].Value != staticFields[i][1] {
			t.Errorf("entry %d is %v, %v", i+1, fs, err)
		}
	}
}

// randomHead makes heads as a mesh sees them: some fields come again and again, some never.
func randomHead(r *rand.Rand) [][2]string {
	head := [][2]string{{":method", "GET"}, {":path", "/" + strings.Repeat("p", r.IntN(40))}}
	for range r.IntN(12) {
		name := fmt.Sprintf("x-%d", r.IntN(20))
		value := fmt.Sprint(r.IntN(8))
		switch r.IntN(6) {
		case 0:
			value = fmt.Sprint(r.Uint64())
		case 1:
			value = strings.Repeat("v", r.IntN(3000))
		case 2:
			name, value = "authorization", "secret"
		}
		head = append(head, [2]string{name, value})
	}
	return head
}

func TestEncoderAgainstTheReferenceDecoder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	enc := newEncoder()
	var got []string
	sensitiveSeen := false
	ref := hpack.NewDecoder(defaultTableSize, func(f hpack.HeaderField) {
		got = append(got, f.Name+"="+f.Value)
		if f.Sensitive != (f.Name == "authorization") {
			sensitiveSeen = true
		}
	})
	for i := range 3000 {
		if r.IntN(50) == 0 { // the peer changes its mind about its table
			for range 1 + r.IntN(2) {
				n := r.IntN(6000)
				enc.limit(n)
				ref.SetAllowedMaxDynamicTableSize(uint32(n))
			}
		}
		head := randomHead(r)
		b := enc.begin(nil)
		var want []string
		for _, f := range head {
			b = enc.field(b, []byte(strings.ToUpper(f[0])), []byte(f[1]))
			want = append(want, f[0]+"="+f[1])
		}
		got = nil
		if _, err := ref.Write(b); err != nil {
			t.Fatal(i, err)
		}
		if err := ref.Close(); err != nil {
			t.Fatal(i, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(i, d)
		}
		if enc.table.size > enc.table.max {
			t.Fatalf("table of %d bytes exceeds %d", enc.table.size, enc.table.max)
		}
	}
	if sensitiveSeen {
		t.Error("a field was or was not marked as never indexed")
	}
}

func TestDecoderAgainstTheReferenceEncoder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var buf bytes.Buffer
	ref := hpack.NewEncoder(&buf)
	dec := newDecoder(defaultTableSize)
	for i := range 3000 {
		if r.IntN(50) == 0 {
			ref.SetMaxDynamicTableSize(uint32(r.IntN(defaultTableSize)))
		}
		head := randomHead(r)
		buf.Reset()
		var want []string
		for _, f := range head {
			_ = ref.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: r.IntN(9) == 0})
			want = append(want, f[0]+"="+f[1])
		}
		var c collect
		dec.arena = nil
		if err := dec.decode(buf.Bytes(), &c, 1<<20); err != nil {
			t.Fatal(i, err)
		}
		if d := cmp.Diff(want, c.got); d != "" {
			t.Fatal(i, d)
		}
	}
}

func TestFieldsThatComeAgainGetSmallAndThoseThatDoNotStayOut(t *testing.T) {
	enc := newEncoder()
	size := func(name, value string) int { return len(enc.field(enc.begin(nil), []byte(name), []byte(value))) }
	size("x-tenant", "blue")
	size("x-tenant", "blue")
	if n := size("x-tenant", "blue"); n != 1 {
		t.Errorf("the third time takes %d bytes", n)
	}
	before := enc.table.total
	for i := range 1000 {
		size("x-request-id", fmt.Sprintf("%032d", i))
	}
	if enc.table.total != before {
		t.Errorf("%d unique values were indexed", enc.table.total-before)
	}
}

func TestCodingDoesNotAllocate(t *testing.T) {
	enc := newEncoder()
	dec := newDecoder(defaultTableSize)
	out := make([]byte, 0, 4096)
	arena := make([]byte, 0, 4096)
	var sink dropSink
	i := 0
	id := []byte("00000000000000000000000000000000")
	n := testing.AllocsPerRun(1000, func() {
		i++
		id[i%32]++
		b := enc.begin(out[:0])
		b = enc.field(b, []byte(":path"), []byte("/pkg.Service/Method"))
		b = enc.field(b, []byte("X-Request-Id"), id)
		b = enc.field(b, []byte("x-tenant"), []byte("blue"))
		dec.arena = arena[:0]
		if err := dec.decode(b, sink, 1<<20); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("allocations per head: %v", n)
	}
}

type dropSink struct{}

func (dropSink) field(_, _ []byte) bool { return true }

func TestABlockOfManyTimesTheBoundIsNotDecodedToItsEnd(t *testing.T) {
	d := newDecoder(4096)
	var c collect
	if err := d.decode(append([]byte{0x40, 1, 'x', 0x7f, 0xc0, 0x16}, bytes.Repeat([]byte("v"), 127+0x40+0x16<<7)...), &c, 1<<20); err != nil {
		t.Fatal(err)
	}
	bomb := bytes.Repeat([]byte{0xbe}, 16000) // each byte is that field again
	c.got = nil
	if err := d.decode(bomb, &c, 60<<10); err != errBomb || len(c.got) > 60<<10/2900 {
		t.Errorf("%v after %d fields", err, len(c.got))
	}
}
