package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var (
	h1Body        = fill(bodySize)
	h1Response    = h1OK(h1Body)
	h2RequestBody = fill(h2RequestSize)
	h2Body        = fill(h2ResponseSize)
	// headPath makes the backend answer with the request head that it got.
	headPath = "/head"
)

// fill makes n bytes that look like text.
func fill(n int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), n/16)
}

func h1OK(body []byte) []byte {
	return append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nX-Backend: bench\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
}

// backend answers what the proxies forward. It writes constants: its time is
// not measured, but it takes processor time away from who is measured.
type backend struct {
	listeners   []net.Listener
	h1, h2, tcp int        // ports
	mu          sync.Mutex // protects the following
	conns       map[net.Conn]bool
	closed      bool
	wg          sync.WaitGroup
}

func startBackend() (*backend, error) {
	b := &backend{conns: map[net.Conn]bool{}}
	for _, s := range []struct {
		port  *int
		serve func(net.Conn) error
	}{{&b.h1, serveH1}, {&b.h2, serveH2}, {&b.tcp, serveTCP}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.close()
			return nil, err
		}
		*s.port = l.Addr().(*net.TCPAddr).Port
		b.listeners = append(b.listeners, l)
		b.wg.Go(func() { b.accept(l, s.serve) })
	}
	return b, nil
}

func (b *backend) accept(l net.Listener, serve func(net.Conn) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !b.add(c) {
			c.Close()
			return
		}
		b.wg.Go(func() {
			defer b.remove(c)
			serve(c) // an error means that the proxy closed, which the load notices
		})
	}
}

func (b *backend) add(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.conns[c] = true
	}
	return !b.closed
}

func (b *backend) remove(c net.Conn) {
	c.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
}

func (b *backend) close() {
	for _, l := range b.listeners {
		l.Close()
	}
	b.mu.Lock()
	b.closed = true
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// serveH1 answers requests without bodies.
func serveH1(c net.Conn) error {
	buf := make([]byte, 8<<10)
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		for {
			i := bytes.Index(buf[:n], []byte("\r\n\r\n"))
			if i < 0 {
				break
			}
			out := h1Response
			if bytes.HasPrefix(buf, []byte("GET "+headPath+" ")) {
				out = h1OK(buf[:i+4])
			}
			if _, err := c.Write(out); err != nil {
				return err
			}
			n = copy(buf, buf[i+4:n])
		}
		if n == len(buf) {
			return fmt.Errorf("request head above %d bytes", n)
		}
	}
}

var (
	h2ResponseHead = []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}, {Name: "x-backend", Value: "bench"}}
	h2Trailers     = []hpack.HeaderField{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message"}}
)

// serveH2 answers unary calls. It never looks into header blocks.
func serveH2(c net.Conn) error {
	br, bw := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	if _, err := io.ReadFull(br, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	s := &h2Server{fr: http2.NewFramer(bw, br), window: 65535}
	s.enc = hpack.NewEncoder(&s.block)
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

type h2Server struct {
	fr      *http2.Framer
	enc     *hpack.Encoder
	block   bytes.Buffer
	window  int64 // that we may send
	waiting []uint32
	taken   int
}

func (s *h2Server) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.DataFrame:
		if s.taken += len(f.Data()); s.taken >= h2Window/2 {
			s.fr.WriteWindowUpdate(0, uint32(s.taken))
			s.taken = 0
		}
		if f.StreamEnded() {
			s.answer(f.StreamID)
		}
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			s.answer(f.StreamID)
		}
	case *http2.SettingsFrame:
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok && v < h2ResponseSize {
			return fmt.Errorf("initial window of %d bytes, this backend needs %d", v, h2ResponseSize)
		}
		if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
			s.enc.SetMaxDynamicTableSizeLimit(v)
		}
		if !f.IsAck() {
			return s.fr.WriteSettingsAck()
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			s.window += int64(f.Increment)
			line := s.waiting
			s.waiting = nil
			for _, id := range line {
				s.answer(id)
			}
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return s.fr.WritePing(true, f.Data)
		}
	}
	return nil
}

func (s *h2Server) answer(id uint32) {
	if s.window < h2ResponseSize {
		s.waiting = append(s.waiting, id)
		return
	}
	s.window -= h2ResponseSize
	s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.encode(h2ResponseHead), EndHeaders: true})
	s.fr.WriteData(id, false, h2Body)
	s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.encode(h2Trailers), EndHeaders: true, EndStream: true})
}

func (s *h2Server) encode(fs []hpack.HeaderField) []byte {
	s.block.Reset()
	for _, f := range fs {
		s.enc.WriteField(f)
	}
	return s.block.Bytes()
}

// serveTCP echoes or sends without end, as the first byte says.
func serveTCP(c net.Conn) error {
	buf := make([]byte, 256<<10)
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return err
	}
	for send := buf[0] == tcpSend; ; {
		n := len(buf)
		if !send {
			var err error
			if n, err = c.Read(buf); err != nil {
				return err
			}
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}
