package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A gRPC-like unary call: 128 bytes there, 256 back, trailers.
const (
	h2RequestSize  = 128
	h2ResponseSize = 256
	h2Window       = 1 << 30 // what we let the other side send
)

var h2RequestFields = []hpack.HeaderField{
	{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/bench.Echo/Unary"}, {Name: ":authority", Value: benchHost},
	{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}, {Name: "user-agent", Value: "grpc-go/1.85.0"},
	{Name: "grpc-accept-encoding", Value: "gzip"}, {Name: "x-client-version", Value: "4.12.0"},
}

// h2Conn is one client connection with any number of streams. The goroutine of
// receive reads and starts the next streams of a closed loop; send may be
// called from another.
type h2Conn struct {
	c    net.Conn
	br   *bufio.Reader
	done func(c *h2Conn, due time.Time) // an answer is complete
	dec  *hpack.Decoder                 // of receive

	mu      sync.Mutex // protects the following
	bw      *bufio.Writer
	fr      *http2.Framer
	enc     *hpack.Encoder
	block   bytes.Buffer
	next    uint32
	window  int64 // that we may send
	waiting []time.Time
	streams map[uint32]*h2Stream

	status, grpcStatus string // of the header block being decoded; receive only
	taken              int    // bytes received and not given back; receive only
}

type h2Stream struct {
	due   time.Time
	bytes int
}

func dialH2(at target, done func(*h2Conn, time.Time)) (*h2Conn, error) {
	c, err := at.dial()
	if err != nil {
		return nil, err
	}
	h := &h2Conn{c: c, br: bufio.NewReaderSize(c, 64<<10), bw: bufio.NewWriterSize(c, 64<<10), done: done, next: 1, window: 65535, streams: map[uint32]*h2Stream{}}
	h.fr = http2.NewFramer(h.bw, h.br)
	h.fr.SetReuseFrames()
	h.enc = hpack.NewEncoder(&h.block)
	h.dec = hpack.NewDecoder(4096, h.field)
	h.bw.WriteString(http2.ClientPreface)
	h.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	h.fr.WriteWindowUpdate(0, h2Window)
	return h, h.bw.Flush()
}

func (h *h2Conn) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		h.status = f.Value
	case "grpc-status":
		h.grpcStatus = f.Value
	}
}

// start writes a request without flushing; it waits in line if the other side's window is empty.
func (h *h2Conn) start(due time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.startLocked(due)
}

func (h *h2Conn) startLocked(due time.Time) {
	if h.window < h2RequestSize {
		h.waiting = append(h.waiting, due)
		return
	}
	h.block.Reset()
	for _, f := range h2RequestFields {
		h.enc.WriteField(f)
	}
	id := h.next
	h.next += 2
	h.window -= h2RequestSize
	h.streams[id] = &h2Stream{due: due}
	h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true})
	h.fr.WriteData(id, true, h2RequestBody)
}

func (h *h2Conn) flush() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bw.Flush()
}

func (h *h2Conn) send(due time.Time) error {
	h.start(due)
	return h.flush()
}

// receive reads until the connection ends.
func (h *h2Conn) receive() error {
	for {
		if h.br.Buffered() == 0 {
			if err := h.flush(); err != nil {
				return err
			}
		}
		f, err := h.fr.ReadFrame()
		if err != nil {
			return err
		}
		if err := h.frame(f); err != nil {
			return err
		}
	}
}

func (h *h2Conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return h.headers(f)
	case *http2.DataFrame:
		h.giveBack(len(f.Data()))
		return h.part(f.StreamID, len(f.Data()), f.StreamEnded())
	case *http2.SettingsFrame:
		return h.settings(f)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			h.mu.Lock()
			h.window += int64(f.Increment)
			line := h.waiting
			h.waiting = nil
			for _, due := range line {
				h.startLocked(due)
			}
			h.mu.Unlock()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			h.mu.Lock()
			h.fr.WritePing(true, f.Data)
			h.mu.Unlock()
		}
	case *http2.RSTStreamFrame:
		return fmt.Errorf("stream %d was reset: %v", f.StreamID, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("GOAWAY %v: %q", f.ErrCode, f.DebugData())
	}
	return nil
}

func (h *h2Conn) headers(f *http2.HeadersFrame) error {
	if !f.HeadersEnded() {
		return errors.New("response head with CONTINUATION")
	}
	h.status, h.grpcStatus = "", ""
	if _, err := h.dec.Write(f.HeaderBlockFragment()); err != nil {
		return err
	}
	if err := h.dec.Close(); err != nil {
		return err
	}
	if f.StreamEnded() && h.grpcStatus != "0" || !f.StreamEnded() && h.status != "200" {
		return fmt.Errorf("wrong response: status %q, grpc-status %q", h.status, h.grpcStatus)
	}
	return h.part(f.StreamID, 0, f.StreamEnded())
}

// part counts a response's body; at its end the next request may start.
func (h *h2Conn) part(id uint32, n int, end bool) error {
	h.mu.Lock()
	s := h.streams[id]
	if s != nil && end {
		delete(h.streams, id)
	}
	h.mu.Unlock()
	if s == nil {
		return fmt.Errorf("frame for stream %d, which is not open", id)
	}
	if s.bytes += n; !end {
		return nil
	}
	if s.bytes != h2ResponseSize {
		return fmt.Errorf("response body of %d bytes, want %d", s.bytes, h2ResponseSize)
	}
	h.done(h, s.due)
	return nil
}

// giveBack opens the connection's window again before it is used up.
func (h *h2Conn) giveBack(n int) {
	if h.taken += n; h.taken >= h2Window/2 {
		h.mu.Lock()
		h.fr.WriteWindowUpdate(0, uint32(h.taken))
		h.mu.Unlock()
		h.taken = 0
	}
}

func (h *h2Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
		h.enc.SetMaxDynamicTableSizeLimit(v)
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok && v < h2RequestSize {
		return fmt.Errorf("initial window of %d bytes, this client needs %d", v, h2RequestSize)
	}
	return h.fr.WriteSettingsAck()
}

// h2Load is m streams on each of n connections, or an open loop over them.
type h2Load struct {
	*pacer[*h2Conn]
	conns   []*h2Conn
	streams int // on each connection in a closed loop
	open    bool
	wg      sync.WaitGroup

	mu   sync.Mutex // protects the following, of a closed loop
	end  time.Time
	left int // requests on the way
	all  []int64
	idle chan struct{} // closed when nothing is on the way any more
}

// openH2 makes a closed loop with rate 0, else an open one.
func openH2(n, streams, rate int) opener {
	return func(at target) (load, error) {
		l := &h2Load{pacer: newPacer[*h2Conn](rate, n*streams), streams: streams, open: rate > 0}
		for range n {
			c, err := dialH2(at, l.answer)
			if err != nil {
				l.close()
				return nil, err
			}
			l.conns = append(l.conns, c)
			l.wg.Go(func() { report(l.fail, c.receive()) })
		}
		for i := range n * streams {
			l.free <- l.conns[i%n]
		}
		return l, nil
	}
}

func (l *h2Load) answer(c *h2Conn, due time.Time) {
	if l.open {
		l.answered(c, due)
		return
	}
	now := time.Now()
	l.mu.Lock()
	l.all = append(l.all, int64(now.Sub(due)))
	again := now.Before(l.end)
	if !again {
		if l.left--; l.left == 0 {
			close(l.idle)
		}
	}
	l.mu.Unlock()
	if again {
		c.start(now)
	}
}

func (l *h2Load) run(ctx context.Context, d time.Duration) (sample, error) {
	if l.open {
		return l.pacer.run(ctx, d)
	}
	start := time.Now()
	l.mu.Lock()
	l.end, l.left, l.all, l.idle = start.Add(d), len(l.conns)*l.streams, nil, make(chan struct{})
	l.mu.Unlock()
	for _, c := range l.conns {
		for range l.streams {
			c.start(time.Now())
		}
		if err := c.flush(); err != nil {
			return sample{}, err
		}
	}
	select {
	case <-l.idle:
		return summary(l.all, time.Since(start)), nil
	case err := <-l.fail:
		return sample{}, err
	case <-ctx.Done():
		return sample{}, ctx.Err()
	case <-time.After(d + answerTimeout):
		return sample{}, fmt.Errorf("http/2: %d answers are missing after %v", l.left, answerTimeout)
	}
}

func (l *h2Load) close() {
	for _, c := range l.conns {
		c.c.Close()
	}
	l.wg.Wait()
}
