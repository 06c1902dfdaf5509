package netio_test

import (
	"bytes"
	"testing"

	"weft.mesh/weft/proxy/netio"
)

// width is the size of the memory that b holds, or takes now.
func width(b *netio.Buffer) int { return len(b.Bytes()) + len(b.Free()) }

// What does not fit into an ordinary buffer fits into a wide one, in order, on every kind of connection.
func TestAWideBufferHoldsWhatComesInBulk(t *testing.T) {
	each(t, func(t *testing.T, client, server *netio.Conn) {
		want := make([]byte, netio.WideSize)
		for i := range want {
			want[i] = byte(i / 7)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := client.Write(want)
			sent <- err
		}()
		var b netio.Buffer
		defer b.Release()
		b.SetWide(true)
		for b.Len() < len(want) {
			if err := server.Fill(&b); err != nil {
				t.Fatalf("after %d bytes: %v", b.Len(), err)
			}
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Error("not what was sent")
		}
		if err := server.Fill(&b); err != netio.ErrBufferFull {
			t.Errorf("a full buffer takes more: %v", err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatAWideBufferHoldsStaysWhereItIs(t *testing.T) {
	var b netio.Buffer
	b.SetWide(true)
	copy(b.Free(), "abc")
	b.Added(3)
	b.SetWide(false)
	if string(b.Bytes()) != "abc" || width(&b) != netio.WideSize {
		t.Errorf("%q in %d bytes", b.Bytes(), width(&b))
	}
	var head netio.Buffer
	head.SetLimit(20 << 10)
	head.Replace(&b)
	if string(head.Bytes()) != "abc" || b.Holds() {
		t.Errorf("%q was moved, and the source holds memory: %v", head.Bytes(), b.Holds())
	}
	head.Release()
	b.SetWide(true)
	b.Free()
	b.SetWide(false)
	if got := width(&b); got != netio.BufferSize {
		t.Errorf("%d bytes when nothing is unread, want %d", got, netio.BufferSize)
	}
	b.Release()
}

// Wide buffers are bounded for the process; beyond it they are ordinary ones.
func TestWideBuffersAreBounded(t *testing.T) {
	const most = 64
	take := func() *netio.Buffer {
		b := new(netio.Buffer)
		b.SetWide(true)
		b.Free()
		return b
	}
	var moved netio.Buffer // what was moved on does not count
	moved.Replace(take())
	held := make([]*netio.Buffer, most)
	for i := range held {
		if held[i] = take(); width(held[i]) != netio.WideSize {
			t.Fatalf("buffer %d has %d bytes", i, width(held[i]))
		}
	}
	over := take()
	if got := width(over); got != netio.BufferSize {
		t.Errorf("one too many has %d bytes, want %d", got, netio.BufferSize)
	}
	held[0].Release()
	again := take()
	if got := width(again); got != netio.WideSize {
		t.Errorf("after one was given back: %d bytes, want %d", got, netio.WideSize)
	}
	for _, b := range append(held, over, again) {
		b.Release()
	}
}
