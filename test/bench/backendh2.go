package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// inspected is how many requests on each connection the backend looks at: enough
// for the questions before a measurement; decoding all of them would take
// processor time from the proxies.
const inspected = 256

var (
	h2ResponseHead = []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}, {Name: "x-backend", Value: "bench"}}
	h2Trailers     = []hpack.HeaderField{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message"}}
	h2PlainHead    = []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/json"}, {Name: "x-backend", Value: "bench"}, {Name: "content-length", Value: fmt.Sprint(bodySize)}}
)

// serveH2 answers unary calls, and requests without a body as serveH1 does.
func serveH2(c net.Conn) error {
	br, bw := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	if _, err := io.ReadFull(br, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	s := &h2Server{fr: http2.NewFramer(bw, br), window: 65535, open: map[uint32]*h2Request{}}
	s.enc = hpack.NewEncoder(&s.block)
	s.dec = hpack.NewDecoder(4096, s.field)
	s.fr.SetReuseFrames()
	s.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
	s.fr.WriteWindowUpdate(0, h2Window)
	for {
		if br.Buffered() == 0 {
			if err := bw.Flush(); err != nil {
				return err
			}
		}
		f, err := s.fr.ReadFrame()
		if err != nil {
			return err
		}
		if err := s.frame(f); err != nil {
			return err
		}
	}
}

// h2Request is a request whose end or answer is outstanding.
type h2Request struct {
	id   uint32
	call bool   // it has a body: a unary call
	head []byte // its fields, if it asked for them
}

type h2Server struct {
	fr      *http2.Framer
	enc     *hpack.Encoder
	block   bytes.Buffer
	window  int64 // that we may send
	waiting []h2Request
	taken   int
	// open are the requests that are not just head and one frame of body.
	open map[uint32]*h2Request

	dec    *hpack.Decoder // nil after the inspected requests
	seen   int
	fields bytes.Buffer // of the head being decoded
	asked  bool         // its path asks for them
}

func (s *h2Server) field(f hpack.HeaderField) {
	if f.Name == ":path" {
		s.asked = f.Value == headPath || f.Value == h2HeadPath
	}
	fmt.Fprintf(&s.fields, "%s: %s\r\n", f.Name, f.Value)
}

func (s *h2Server) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.DataFrame:
		if s.taken += len(f.Data()); s.taken >= h2Window/2 {
			s.fr.WriteWindowUpdate(0, uint32(s.taken))
			s.taken = 0
		}
		s.data(f)
	case *http2.HeadersFrame:
		return s.headers(f)
	case *http2.SettingsFrame:
		return s.settings(f)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			s.window += int64(f.Increment)
			line := s.waiting
			s.waiting = nil
			for _, r := range line {
				s.answer(r)
			}
		}
	case *http2.RSTStreamFrame:
		delete(s.open, f.StreamID)
	case *http2.PingFrame:
		if !f.IsAck() {
			return s.fr.WritePing(true, f.Data)
		}
	}
	return nil
}

func (s *h2Server) data(f *http2.DataFrame) {
	r := s.open[f.StreamID]
	if f.StreamEnded() {
		delete(s.open, f.StreamID)
		out := h2Request{id: f.StreamID, call: len(f.Data()) > 0}
		if r != nil {
			out.call, out.head = out.call || r.call, r.head
		}
		s.answer(out)
		return
	}
	if len(f.Data()) > 0 {
		if r == nil {
			r = &h2Request{id: f.StreamID}
			s.open[f.StreamID] = r
		}
		r.call = true
	}
}

func (s *h2Server) headers(f *http2.HeadersFrame) error {
	r := h2Request{id: f.StreamID}
	if s.dec != nil {
		if s.seen++; s.seen > inspected || !f.HeadersEnded() {
			s.dec = nil
		}
	}
	if s.dec != nil {
		s.fields.Reset()
		s.asked = false
		if _, err := s.dec.Write(f.HeaderBlockFragment()); err != nil {
			return err
		}
		if err := s.dec.Close(); err != nil {
			return err
		}
		if s.asked {
			r.head = bytes.Clone(s.fields.Bytes())
		}
	}
	switch {
	case f.StreamEnded():
		s.answer(r)
	case r.head != nil:
		s.open[r.id] = &r
	}
	return nil
}

func (s *h2Server) settings(f *http2.SettingsFrame) error {
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok && v < bodySize {
		return fmt.Errorf("initial window of %d bytes, this backend needs %d", v, bodySize)
	}
	if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
		s.enc.SetMaxDynamicTableSizeLimit(v)
	}
	if !f.IsAck() {
		return s.fr.WriteSettingsAck()
	}
	return nil
}

// answer waits for the other side's window if it has to.
func (s *h2Server) answer(r h2Request) {
	head, body := h2ResponseHead, h2Body
	if !r.call {
		head, body = h2PlainHead, h1Body
	}
	if r.head != nil {
		body = r.head
		if !r.call {
			head = append(slices.Clone(h2PlainHead[:3]), hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(body))})
		}
	}
	if s.window < int64(len(body)) {
		s.waiting = append(s.waiting, r)
		return
	}
	s.window -= int64(len(body))
	s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, BlockFragment: s.encode(head), EndHeaders: true})
	s.fr.WriteData(r.id, !r.call, body)
	if r.call {
		s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, BlockFragment: s.encode(h2Trailers), EndHeaders: true, EndStream: true})
	}
}

func (s *h2Server) encode(fs []hpack.HeaderField) []byte {
	s.block.Reset()
	for _, f := range fs {
		s.enc.WriteField(f)
	}
	return s.block.Bytes()
}
