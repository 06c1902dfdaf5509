package http1

import (
	"bytes"
	"net"
	"testing"

	"weft.mesh/weft/proxy/netio"
)

// flood is a connection on which there is always something to read: as much as asked for, but at most size.
type flood struct {
	net.Conn
	size int
}

func (f *flood) Read(p []byte) (int, error) {
	n := min(len(p), f.size)
	copy(p, bytes.Repeat([]byte("x"), n))
	return n, nil
}

func TestABodyThatComesFastIsReadInLargePieces(t *testing.T) {
	src := &flood{size: 1 << 20}
	c := netio.New(src)
	var in input
	defer in.release()
	read := func(want int) {
		t.Helper()
		if err := in.fill(c); err != nil {
			t.Fatal(err)
		}
		if got := len(in.rest()); got != want {
			t.Errorf("read %d bytes, want %d", got, want)
		}
		in.consume(len(in.rest()))
	}
	read(netio.BufferSize)
	read(netio.BufferSize)
	read(netio.WideSize)
	read(netio.WideSize)
	src.size = 100 // it comes no faster than it is read
	read(100)
	src.size = 1 << 20
	read(netio.BufferSize)
	read(netio.BufferSize)
	read(netio.WideSize)
	in.next() // another message has to show it anew
	read(netio.BufferSize)
}

// What was read beyond a message becomes the next one's head, which may be as large as any other.
func TestAPipelinedHeadMayBeAsLargeAsAnyOther(t *testing.T) {
	const limit = 60 << 10
	c := netio.New(&flood{size: 100})
	var in input
	defer in.release()
	in.head.SetLimit(limit)
	for range 2 {
		if err := in.fill(c); err != nil {
			t.Fatal(err)
		}
		in.next()
		if got := in.head.Len(); got != 100 {
			t.Fatalf("%d bytes were read beyond, want 100", got)
		}
		for in.head.Len() < limit-100 {
			if err := c.Fill(&in.head); err != nil {
				t.Fatalf("after %d bytes of a head: %v", in.head.Len(), err)
			}
		}
		in.off = in.head.Len()
		in.next()
	}
}
