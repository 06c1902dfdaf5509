package corpus

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// answer2 is a response of an upstream that speaks HTTP/2, frame by frame and not necessarily a valid one.
type answer2 struct {
	interim, head, trailers []pair
	data                    [][]byte
	end                     string // open, reset, goaway, close or push instead of END_STREAM on the last frame
}

// serve2 speaks HTTP/2 with a proxy whose preface is there. What it is asked is kept as
// if it had been asked over HTTP/1.
func (b *backend) serve2(r *record, have []byte) {
	fr := http2.NewFramer(r.c, io.MultiReader(bytes.NewReader(have[len(http2.ClientPreface):]), r.c))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if fr.WriteSettings() != nil {
		return
	}
	heads, bodies := map[uint32]*http2.MetaHeadersFrame{}, map[uint32][]byte{}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		over := false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = fr.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			if heads[f.StreamID] == nil {
				heads[f.StreamID] = f
			}
			over = f.StreamEnded()
		case *http2.DataFrame:
			bodies[f.StreamID] = append(bodies[f.StreamID], f.Data()...)
			over = f.StreamEnded()
		}
		if id := f.Header().StreamID; over && heads[id] != nil {
			b.asked(r, heads[id], bodies[id])
			b.answer(r.c, id)
		}
	}
}

// asked keeps a request.
func (b *backend) asked(r *record, h *http2.MetaHeadersFrame, body []byte) {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s HTTP/1.1\r\nhost: %s\r\n", h.PseudoValue("method"), h.PseudoValue("path"), h.PseudoValue("authority"))
	for _, f := range h.RegularFields() {
		if f.Name != "content-length" {
			fmt.Fprintf(&s, "%s: %s\r\n", f.Name, f.Value)
		}
	}
	if len(body) > 0 {
		fmt.Fprintf(&s, "content-length: %d\r\n", len(body))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.data = append(append(append(r.data, s.String()...), "\r\n"...), body...)
}

// answer sends the case's response to the first request, and 200 to the others.
func (b *backend) answer(c net.Conn, id uint32) {
	b.mu.Lock()
	b.served++
	a := b.script.answer
	if b.served > 1 || a == nil {
		a = &answer2{head: []pair{{":status", "200"}}, data: [][]byte{[]byte("ok")}}
	}
	b.mu.Unlock()
	out := &bytes.Buffer{} // all in one write
	w := http2.NewFramer(out, nil)
	w.AllowIllegalWrites = true
	ends := a.end == ""
	if a.interim != nil {
		writeBlockOn(w, id, block(a.interim), ends && a.head == nil)
	}
	if a.head != nil {
		writeBlockOn(w, id, block(a.head), ends && len(a.data) == 0 && a.trailers == nil)
	}
	for i, d := range a.data {
		_ = w.WriteData(id, ends && i == len(a.data)-1 && a.trailers == nil, d)
	}
	if a.trailers != nil {
		writeBlockOn(w, id, block(a.trailers), ends)
	}
	switch a.end {
	case "reset":
		_ = w.WriteRSTStream(id, http2.ErrCodeInternal)
	case "goaway":
		_ = w.WriteGoAway(0, http2.ErrCodeProtocol, nil)
	case "push":
		_ = w.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: block([]pair{{":method", "GET"}, {":path", "/evil"}}), EndHeaders: true})
	}
	_, _ = c.Write(out.Bytes())
	if a.end == "close" {
		_ = c.(*net.TCPConn).CloseWrite()
	}
}
