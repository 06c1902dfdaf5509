package grpcstream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"weft.mesh/weft/control/grpcstream"
)

const method = "/test.Echo/Talk"

// raw is a codec of bytes.
type raw struct{}

func (raw) Name() string { return "raw" }
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (raw) Unmarshal(b mem.BufferSlice, v any) error { *v.(*[]byte) = b.Materialize(); return nil }

// echo says what it hears, and ends as it is told to.
type echo struct {
	s      *grpcstream.Stream
	closed chan struct{}
	full   chan struct{}      // closed when the client has much to take; nil: nobody asks
	told   bool               // it is closed
	held   chan chan struct{} // the message "hold" is not done until what it gives here is closed; nil: it is one like others
}

func message(b []byte) []byte {
	m := append(grpcstream.AppendPrefix(nil), b...)
	grpcstream.SetPrefix(m, false)
	return m
}

func (e *echo) Message(b []byte) error {
	if rest, ok := strings.CutPrefix(string(b), "fail "); ok {
		return status.Error(codes.FailedPrecondition, rest)
	}
	if e.held != nil && string(b) == "hold" {
		release := make(chan struct{})
		e.held <- release
		<-release
	}
	e.s.Send(message(b))
	if e.full != nil && !e.told && e.s.Full() {
		e.told = true
		close(e.full)
	}
	return nil
}
func (e *echo) Drained() {}
func (e *echo) Closed()  { close(e.closed) }

// rig is a server with one method of its own, and gRPC's health service beside it.
type rig struct {
	addr   string
	opened chan *echo
	gate   chan struct{} // Accept waits for it; nil: it does not
}

func start(t *testing.T, change func(*grpcstream.Settings)) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{addr: l.Addr().String(), opened: make(chan *echo, 100)}
	set := grpcstream.Settings{Method: method, Others: grpcstream.NewOthers(l.Addr())}
	set.Accept = func(ctx context.Context, s *grpcstream.Stream) (grpcstream.Receiver, error) {
		if r.gate != nil {
			select {
			case <-r.gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		e := &echo{s: s, closed: make(chan struct{}), full: make(chan struct{}), held: make(chan chan struct{})}
		r.opened <- e
		return e, nil
	}
	var opts []grpc.ServerOption
	if change != nil {
		change(&set)
	}
	if set.TLS != nil {
		opts = append(opts, grpc.Creds(grpcstream.Credentials()))
	}
	g := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(g, health.NewServer())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := grpcstream.New(set).Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { _ = g.Serve(set.Others) })
	t.Cleanup(func() { cancel(); g.Stop(); wg.Wait() })
	return r
}

func (r *rig) client(t *testing.T, creds credentials.TransportCredentials, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+r.addr, append(opts, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func talk(t *testing.T, c *grpc.ClientConn, opts ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	s, err := c.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, append(opts, grpc.ForceCodecV2(raw{}))...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func say(t *testing.T, s grpc.ClientStream, b []byte) []byte {
	t.Helper()
	if err := s.SendMsg(b); err != nil {
		t.Fatal(err)
	}
	return hear(t, s)
}

func hear(t *testing.T, s grpc.ClientStream) []byte {
	t.Helper()
	var got []byte
	if err := s.RecvMsg(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

func await(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(time.Minute):
		t.Fatal(what)
	}
}

func TestMessagesOfAllSizesGoBothWays(t *testing.T) {
	for _, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		r := start(t, nil)
		s := talk(t, r.client(t, insecure.NewCredentials(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20))), opts...)
		for _, n := range []int{0, 1, 500, 512, 4 << 10, 16 << 10, 64 << 10, 300 << 10, 1 << 20, 7} {
			b := bytes.Repeat([]byte{byte(n), byte(n >> 8)}, n)[:n]
			if got := say(t, s, b); !bytes.Equal(got, b) {
				t.Fatalf("%d bytes came back as %d", len(b), len(got))
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		var b []byte
		if err := s.RecvMsg(&b); !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v", err)
		}
		await(t, (<-r.opened).closed, "the stream is not closed")
	}
}

func TestManyStreamsOnOneConnection(t *testing.T) {
	r := start(t, nil)
	c := r.client(t, insecure.NewCredentials())
	var wg sync.WaitGroup
	for i := range 20 {
		s := talk(t, c)
		wg.Go(func() {
			for j := range 50 {
				want := bytes.Repeat([]byte{byte(i), byte(j)}, 1000)
				var got []byte
				if err := s.SendMsg(want); err != nil {
					t.Error(err)
				}
				if err := s.RecvMsg(&got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("stream %d: %d bytes, %v", i, len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAnErrorIsTheStreamsStatus(t *testing.T) {
	r := start(t, func(s *grpcstream.Settings) { s.MaxMessage = 1000 })
	c := r.client(t, insecure.NewCredentials())
	for _, tc := range []struct {
		send string
		code codes.Code
		text string
	}{
		{"fail no: 100 % ü", codes.FailedPrecondition, "no: 100 % ü"},
		{strings.Repeat("x", 1001), codes.ResourceExhausted, "a message of 1001 bytes, at most 1000"},
	} {
		s := talk(t, c)
		if got := say(t, s, []byte("hello")); string(got) != "hello" {
			t.Fatalf("got %q", got)
		}
		if err := s.SendMsg([]byte(tc.send)); err != nil {
			t.Fatal(err)
		}
		var b []byte
		if st := status.Convert(s.RecvMsg(&b)); st.Code() != tc.code || st.Message() != tc.text {
			t.Errorf("status %v, want %v %q", st, tc.code, tc.text)
		}
		await(t, (<-r.opened).closed, "the stream is not closed")
	}
	refuse := start(t, func(s *grpcstream.Settings) {
		s.Accept = func(context.Context, *grpcstream.Stream) (grpcstream.Receiver, error) {
			return nil, status.Error(codes.Unauthenticated, "who?")
		}
	})
	var b []byte
	if err := talk(t, refuse.client(t, insecure.NewCredentials())).RecvMsg(&b); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a refused stream has %v", err)
	}
}

// Other calls are gRPC's, on whichever connection they come first, and beside a stream that is open.
func TestOtherCallsAreTheGRPCServers(t *testing.T) {
	r := start(t, nil)
	ask := func(c *grpc.ClientConn) {
		t.Helper()
		if _, err := healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	ask(r.client(t, insecure.NewCredentials()))
	c := r.client(t, insecure.NewCredentials())
	s := talk(t, c)
	say(t, s, []byte("before"))
	ask(c)
	ask(c)
	if got := say(t, s, []byte("after")); string(got) != "after" {
		t.Errorf("the stream that was open says %q", got)
	}
}

// A client that does not read what it is sent is not listened to, and goes on when it reads.
func TestAClientThatDoesNotReadIsNotListenedTo(t *testing.T) {
	r := start(t, nil)
	s := talk(t, r.client(t, insecure.NewCredentials(), grpc.WithStaticStreamWindowSize(1<<16), grpc.WithStaticConnWindowSize(1<<16)))
	b := bytes.Repeat([]byte("x"), 50<<10)
	sent := make(chan int, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const all = 40
	go func() {
		n := 0
		for ; n < all && ctx.Err() == nil && s.SendMsg(b) == nil; n++ {
		}
		sent <- n
	}()
	e := <-r.opened
	await(t, e.full, "an answer that the client does not take") // it answers each message, and its client reads none
	select {
	case n := <-sent:
		t.Fatalf("%d messages were taken from a client that reads none", n)
	case <-time.After(50 * time.Millisecond):
	}
	for range all {
		if got := hear(t, s); !bytes.Equal(got, b) {
			t.Fatalf("got %d bytes", len(got))
		}
	}
	if n := <-sent; n != all {
		t.Errorf("%d messages were sent", n)
	}
}

// peer speaks HTTP/2 as a client that no library is.
type peer struct {
	t    *testing.T
	conn net.Conn
	*http2.Framer
}

func (r *rig) peer(t *testing.T) *peer {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := &peer{t, c, http2.NewFramer(c, c)}
	p.AllowIllegalWrites = true
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, http2.ClientPreface)
	p.WriteSettings()
	return p
}

func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func call(more ...string) []byte {
	return block(append([]string{":method", "POST", ":scheme", "http", ":path", method, "content-type", "application/grpc"}, more...)...)
}

func (p *peer) open(id uint32, b []byte) {
	p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b, EndHeaders: true})
}

// until reads up to a frame.
func (p *peer) until(what string, ok func(http2.Frame) bool) http2.Frame {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("%s does not come: %v", what, err)
		}
		if ok(f) {
			return f
		}
	}
}

// What breaks the protocol ends the connection with the error that RFC 9113 names.
func TestABrokenClientIsToldWhy(t *testing.T) {
	r := start(t, nil)
	for _, tc := range []struct {
		name string
		code http2.ErrCode
		do   func(p *peer)
	}{
		{"a window that is too large", http2.ErrCodeFlowControl, func(p *peer) { p.WriteWindowUpdate(1, 1<<31-1) }},
		{"a frame that is too large", http2.ErrCodeFrameSize, func(p *peer) { p.WriteData(1, false, make([]byte, 16<<10+1)) }},
		{"DATA of no stream", http2.ErrCodeProtocol, func(p *peer) { p.WriteData(9, false, []byte("x")) }},
		{"an even stream", http2.ErrCodeProtocol, func(p *peer) { p.open(4, call()) }},
		{"CONTINUATION of nothing", http2.ErrCodeProtocol, func(p *peer) { p.WriteContinuation(1, true, nil) }},
		{"a block that is not continued", http2.ErrCodeProtocol, func(p *peer) {
			p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: call()})
			p.WritePing(false, [8]byte{})
		}},
		{"a block without an end", http2.ErrCodeEnhanceYourCalm, func(p *peer) {
			p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: call()})
			for range 3 {
				p.WriteContinuation(3, false, make([]byte, 16<<10))
			}
		}},
		{"a block that cannot be read", http2.ErrCodeCompression, func(p *peer) { p.open(3, []byte{0xff, 0xff, 0xff}) }},
		{"too many headers", http2.ErrCodeEnhanceYourCalm, func(p *peer) { p.open(3, call("a", strings.Repeat("x", 9000), "b", strings.Repeat("y", 9000))) }},
		{"PING without end", http2.ErrCodeEnhanceYourCalm, func(p *peer) {
			for range 5000 {
				if p.WritePing(false, [8]byte{}) != nil {
					return
				}
			}
		}},
		{"WINDOW_UPDATE of nothing", http2.ErrCodeProtocol, func(p *peer) { p.WriteWindowUpdate(1, 0) }},
		{"malformed SETTINGS", http2.ErrCodeFrameSize, func(p *peer) { p.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }},
		{"PUSH_PROMISE", http2.ErrCodeProtocol, func(p *peer) { p.WriteRawFrame(http2.FramePushPromise, 0, 1, make([]byte, 4)) }},
		{"padding longer than its frame", http2.ErrCodeProtocol, func(p *peer) { p.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{9, 0}) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := r.peer(t)
			p.open(1, call())
			e := <-r.opened
			go tc.do(p)
			f := p.until("GOAWAY", func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway })
			if got := f.(*http2.GoAwayFrame).ErrCode; got != tc.code {
				t.Errorf("GOAWAY with %v, want %v", got, tc.code)
			}
			await(t, e.closed, "the stream is not closed")
		})
	}
}

func TestCallsThatCannotBeServed(t *testing.T) {
	r := start(t, nil)
	for _, tc := range []struct {
		name, status string
		block        []byte
	}{
		{"another method of HTTP", "13", block(":method", "GET", ":scheme", "http", ":path", method, "content-type", "application/grpc")},
		{"another type", "13", block(":method", "POST", ":scheme", "http", ":path", method, "content-type", "text/plain")},
		{"another encoding", "12", call("grpc-encoding", "snappy")},
		{"no timeout", "13", call("grpc-timeout", "soon")},
		{"a timeout", "4", call("grpc-timeout", "1m")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := r.peer(t)
			p.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
			p.open(1, tc.block)
			f := p.until("the answer", func(f http2.Frame) bool { return f.Header().Type == http2.FrameHeaders }).(*http2.MetaHeadersFrame)
			got := ""
			for _, h := range f.RegularFields() {
				if h.Name == "grpc-status" {
					got = h.Value
				}
			}
			if got != tc.status || !f.StreamEnded() {
				t.Errorf("grpc-status %q, want %q; the end: %v", got, tc.status, f.StreamEnded())
			}
		})
	}
}

// What a client says before its turn waits with the client, but for a few kilobytes.
func TestAStreamThatWaitsHasASmallWindow(t *testing.T) {
	r := start(t, func(s *grpcstream.Settings) {})
	r.gate = make(chan struct{})
	p := r.peer(t)
	hello := p.until("SETTINGS", func(f http2.Frame) bool { return f.Header().Type == http2.FrameSettings }).(*http2.SettingsFrame)
	if v, _ := hello.Value(http2.SettingInitialWindowSize); v != 4<<10 {
		t.Errorf("the window before its turn is %d", v)
	}
	p.open(1, call())
	p.WriteData(1, false, message([]byte("early")))
	p.WritePing(false, [8]byte{1})
	p.until("PING", func(f http2.Frame) bool { return f.Header().Type == http2.FramePing }) // it is listened to all the same
	close(r.gate)
	p.until("more window", func(f http2.Frame) bool {
		return f.Header().Type == http2.FrameWindowUpdate && f.Header().StreamID == 1
	})
	p.until("the answer", func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		return ok && string(d.Data()[grpcstream.PrefixSize:]) == "early"
	})
}

// A stream may not be sent more than its window, however long nobody takes it.
func TestDataBeyondTheWindowEndsTheConnection(t *testing.T) {
	r := start(t, nil)
	r.gate = make(chan struct{})
	p := r.peer(t)
	p.open(1, call())
	go func() {
		for range 5 {
			p.WriteData(1, false, make([]byte, 16<<10))
		}
	}()
	f := p.until("GOAWAY", func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("GOAWAY with %v", f.ErrCode)
	}
}

func TestASilentClientIsAskedAndLetGo(t *testing.T) {
	isPing := func(f http2.Frame) bool { return f.Header().Type == http2.FramePing }
	for _, answers := range []bool{false, true} {
		r := start(t, func(s *grpcstream.Settings) {
			s.KeepAlive = 5 * time.Millisecond
			if !answers {
				s.Answer = 5 * time.Millisecond
			}
		})
		p := r.peer(t)
		p.open(1, call())
		e := <-r.opened
		ping := p.until("PING", isPing).(*http2.PingFrame)
		if !answers {
			await(t, e.closed, "a client that is not there keeps its stream")
			continue
		}
		p.WritePing(true, ping.Data)
		p.until("another PING", isPing) // it is asked again only after it has answered
		select {
		case <-e.closed:
			t.Error("a client that answers is let go")
		default:
		}
	}
}

// A client's end that comes with its last bytes wakes nobody by itself.
func TestAnEndThatComesWithTheLastBytesIsSeen(t *testing.T) {
	r := start(t, func(s *grpcstream.Settings) { s.KeepAlive = time.Hour })
	p := r.peer(t)
	p.open(1, call())
	e := <-r.opened
	p.WriteData(1, false, message([]byte("hold")))
	release := <-e.held
	p.WriteData(1, false, message([]byte("last")))
	if err := p.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	close(release)
	await(t, e.closed, "a client that has left keeps its stream")
}

// An old connection is told to go, and is ended if its streams do not end by themselves.
func TestOldConnectionsEnd(t *testing.T) {
	r := start(t, func(s *grpcstream.Settings) { s.MaxAge, s.AgeGrace = 10*time.Millisecond, 10*time.Millisecond })
	p := r.peer(t)
	p.open(1, call())
	e := <-r.opened
	f := p.until("GOAWAY", func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if f.ErrCode != http2.ErrCodeNo || f.LastStreamID != 1 {
		t.Errorf("GOAWAY %v after stream %d", f.ErrCode, f.LastStreamID)
	}
	await(t, e.closed, "the stream is not ended")
}
