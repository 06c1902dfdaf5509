package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	msg "weft.mesh/weft/proxy/stream"
)

// peerModel is what one side has sent, as the reference framer reads it: slowly, and without any state of streams.
type peerModel struct {
	streams   map[uint32]*streamModel
	settings  int // frames that are no ACK
	pings     [][8]byte
	maxWindow int64 // the largest SETTINGS_INITIAL_WINDOW_SIZE
	maxFrame  uint32
	granted   map[uint32]int64 // WINDOW_UPDATE increments by stream
	err       error            // where reading stopped
}

type streamModel struct {
	heads []map[string]string // final head and trailers; of responses also interim heads
	body  []byte
	ended bool
	bad   bool // a header block that the reference refuses
}

// readModel reads all frames there are.
func readModel(r io.Reader) *peerModel {
	m := &peerModel{streams: map[uint32]*streamModel{}, granted: map[uint32]int64{}, maxWindow: 65535, maxFrame: 16384}
	fr := xhttp2.NewFramer(io.Discard, withoutPriority(r))
	fr.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
	fr.SetMaxReadFrameSize(1 << 24)
	get := func(id uint32) *streamModel {
		if m.streams[id] == nil {
			m.streams[id] = &streamModel{}
		}
		return m.streams[id]
	}
	for {
		f, err := fr.ReadFrame()
		var se xhttp2.StreamError
		if errors.As(err, &se) {
			if s := get(se.StreamID); !s.ended { // what comes after its end may come after the answer too
				s.bad = true
			}
			continue
		}
		if err != nil {
			m.err = err
			return m
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *xhttp2.MetaHeadersFrame:
			head := map[string]string{}
			for _, x := range f.Fields {
				if v, ok := head[x.Name]; ok {
					head[x.Name] = v + "," + x.Value
				} else {
					head[x.Name] = x.Value
				}
			}
			s := get(id)
			if s.ended {
				continue // nothing belongs to a stream after its end
			}
			s.heads = append(s.heads, head)
			s.ended = s.ended || f.StreamEnded()
		case *xhttp2.DataFrame:
			s := get(id)
			if s.ended {
				continue
			}
			s.body = append(s.body, f.Data()...)
			s.ended = s.ended || f.StreamEnded()
		case *xhttp2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			m.settings++
			_ = f.ForeachSetting(func(x xhttp2.Setting) error {
				switch x.ID {
				case xhttp2.SettingInitialWindowSize:
					m.maxWindow = max(m.maxWindow, int64(x.Val))
				case xhttp2.SettingMaxFrameSize:
					m.maxFrame = max(m.maxFrame, x.Val)
				}
				return nil
			})
		case *xhttp2.PingFrame:
			if !f.IsAck() {
				m.pings = append(m.pings, f.Data)
			}
		case *xhttp2.WindowUpdateFrame:
			m.granted[id] += int64(f.Increment)
		}
	}
}

const framePriorityUpdate = 0x10

// withoutPriority leaves out PRIORITY frames, for the reference ends the connection for one of a wrong size, which
// is an error of its stream only (RFC 9113 section 6.3), and PRIORITY_UPDATE, which we need not know (RFC 9218).
func withoutPriority(r io.Reader) io.Reader {
	all, _ := io.ReadAll(r)
	var out []byte
	for inBlock := false; len(all) >= 9; {
		n := 9 + int(all[0])<<16 + int(all[1])<<8 + int(all[2])
		typ, flags := xhttp2.FrameType(all[3]), xhttp2.Flags(all[4])
		if typ == xhttp2.FrameData && n > len(all) && !inBlock {
			return bytes.NewReader(append(out, cutData(all, n)...))
		}
		if typ != xhttp2.FramePriority && typ != framePriorityUpdate || inBlock {
			out = append(out, all[:min(n, len(all))]...)
		}
		if typ == xhttp2.FrameHeaders || typ == xhttp2.FrameContinuation {
			inBlock = !flags.Has(xhttp2.FlagHeadersEndHeaders)
		}
		all = all[min(n, len(all)):]
	}
	return bytes.NewReader(append(out, all...))
}

// cutData makes what has come of a DATA frame of n bytes a whole one: the reference waits for all of it, we do not.
func cutData(b []byte, n int) []byte {
	p := b[9:]
	if xhttp2.Flags(b[4]).Has(xhttp2.FlagDataPadded) {
		if len(p) == 0 {
			return nil
		}
		p = p[1:max(1, min(len(p), n-9-int(p[0])))]
	}
	return append([]byte{byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p)), 0, 0, b[5], b[6], b[7], b[8]}, p...)
}

// whole tells that the reference has read to the end.
func (m *peerModel) whole() bool { return m.err == io.EOF || m.err == io.ErrUnexpectedEOF }

// answers checks the frames of our side against what the other side allowed, and returns them as read by the reference.
func (m *peerModel) answers(t *testing.T, out []byte) *peerModel {
	t.Helper()
	fr := xhttp2.NewFramer(io.Discard, bytes.NewReader(out))
	fr.SetMaxReadFrameSize(1 << 24)
	acks, pongs := 0, 0
	sent := map[uint32]int64{}
	over := map[uint32]bool{}
	for {
		f, err := fr.ReadFrame()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			t.Fatalf("what we send is no HTTP/2: %v", err)
		}
		h := f.Header()
		if h.Length > m.maxFrame {
			t.Fatalf("a frame of %d bytes, %d allowed", h.Length, m.maxFrame)
		}
		switch f := f.(type) {
		case *xhttp2.SettingsFrame:
			if f.IsAck() {
				acks++
			}
		case *xhttp2.PingFrame:
			if !f.IsAck() {
				continue
			}
			if pongs == len(m.pings) && !m.whole() {
				continue
			}
			if pongs == len(m.pings) || f.Data != m.pings[pongs] {
				t.Fatalf("PING number %d is answered with %x", pongs, f.Data)
			}
			pongs++
		case *xhttp2.DataFrame:
			if over[h.StreamID] {
				t.Fatalf("DATA on stream %d after its end", h.StreamID)
			}
			sent[h.StreamID] += int64(h.Length)
			sent[0] += int64(h.Length)
			over[h.StreamID] = f.StreamEnded()
			if !m.whole() {
				continue // it may not have seen all that was granted
			}
			if n := m.maxWindow + m.granted[h.StreamID]; sent[h.StreamID] > n {
				t.Fatalf("%d bytes on stream %d, at most %d were granted", sent[h.StreamID], h.StreamID, n)
			}
			if n := 65535 + m.granted[0]; sent[0] > n {
				t.Fatalf("%d bytes on the connection, at most %d were granted", sent[0], n)
			}
		case *xhttp2.HeadersFrame:
			if over[h.StreamID] {
				t.Fatalf("HEADERS on stream %d after its end", h.StreamID)
			}
			over[h.StreamID] = f.StreamEnded()
		case *xhttp2.RSTStreamFrame:
			over[h.StreamID] = true
		}
	}
	if acks > m.settings && m.whole() {
		t.Fatalf("%d SETTINGS are acknowledged, %d came", acks, m.settings)
	}
	ours := readModel(bytes.NewReader(out))
	for id, s := range ours.streams {
		if s.bad {
			t.Fatalf("what we send on stream %d is malformed", id)
		}
	}
	return ours
}

// frames makes seeds.
func frames(f func(fr *xhttp2.Framer, block func(...string) []byte)) []byte {
	var out, hb bytes.Buffer
	fr := xhttp2.NewFramer(&out, nil)
	fr.AllowIllegalWrites = true
	enc := hpack.NewEncoder(&hb)
	f(fr, func(pairs ...string) []byte {
		hb.Reset()
		for i := 0; i < len(pairs); i += 2 {
			_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
		return bytes.Clone(hb.Bytes())
	})
	return out.Bytes()
}

// FuzzServer: whatever frames come, the server does not panic and ends; each request that reaches the handler
// is one that the reference reads from the same bytes, field by field and with the beginning of its body; and what we
// answer keeps to the windows, frame sizes, order and counts that the client's frames allow.
func FuzzServer(f *testing.F) {
	f.Add(frames(func(fr *xhttp2.Framer, block func(...string) []byte) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block(post...), EndHeaders: true})
		_ = fr.WriteData(1, false, []byte("hello"))
		_ = fr.WriteDataPadded(1, true, []byte("world"), []byte{0, 0})
		_ = fr.WriteWindowUpdate(0, 10)
		_ = fr.WritePing(false, [8]byte{})
		_ = fr.WriteGoAway(1, 0, nil)
	}))
	f.Add(frames(func(fr *xhttp2.Framer, block func(...string) []byte) {
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1}, xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0})
		b := block(append(post[:len(post):len(post)], "cookie", "a=b", "cookie", "c=d")...)
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3]})
		_ = fr.WriteContinuation(1, true, b[3:])
		_ = fr.WriteData(1, false, []byte("hello"))
		_ = fr.WriteWindowUpdate(1, 1)
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 3})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block("x-trailer", "t"), EndHeaders: true, EndStream: true})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: block(get...), EndHeaders: true, EndStream: true, Priority: xhttp2.PriorityParam{StreamDep: 1}})
		_ = fr.WriteRSTStream(3, xhttp2.ErrCodeCancel)
		_ = fr.WritePing(false, [8]byte{1})
		_ = fr.WritePing(false, [8]byte{2})
	}))
	f.Add(frames(func(fr *xhttp2.Framer, block func(...string) []byte) { // what must be refused
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET", ":path", "/", ":scheme", "http", "Upper", "x"), EndHeaders: true, EndStream: true})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: block(append(get[:len(get):len(get)], "connection", "close", "te", "gzip")...), EndHeaders: true, EndStream: true})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 2, BlockFragment: block(get...), EndHeaders: true, EndStream: true})
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 32<<10 {
			return
		}
		a, b := memnet.Pipe(memnet.Link{Buffer: 4 << 20})
		_, _ = a.Write([]byte(preface))
		_, _ = a.Write(data)
		_ = a.CloseWrite()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(context.Background(), netio.New(b), ServerOptions{MaxHeaderBytes: 4096}, echo)
		}()
		out, err := io.ReadAll(a)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		<-done
		client := readModel(bytes.NewReader(data))
		for id, s := range client.answers(t, out).streams {
			if client.streams[id] == nil && !client.whole() {
				continue // the reference ends connections for reasons of its own, as CONTINUATION behind a malformed field
			}
			if err := matches(client.streams[id], s); err != nil {
				t.Fatalf("stream %d: %v\nwe answer %q %q\nto %+v (the reference stops with %v)", id, err, s.heads, s.body, client.streams[id], client.err)
			}
			if id%2 == 0 {
				t.Fatalf("stream %d is not a client's", id)
			}
		}
	})
}

// matches compares an answer of [echo] with the request that the reference has read.
func matches(req, resp *streamModel) error {
	if len(resp.heads) == 0 || resp.heads[0][":status"] != "200" {
		return nil // a refusal
	}
	if req == nil || len(req.heads) == 0 {
		return errors.New("a request that the reference does not see")
	}
	if req.bad && len(req.heads) == 1 && !resp.ended {
		return nil // its trailers are what the reference refuses
	}
	if req.bad && len(resp.heads) > 1 {
		return errors.New("a request that the reference refuses was answered to its end")
	}
	head, got := req.heads[0], resp.heads[0]
	authority := head[":authority"]
	if authority == "" {
		authority = head["host"]
	}
	for name, want := range map[string]string{"x-method": head[":method"], "x-path": head[":path"], "x-authority": authority} {
		if got[name] != want {
			return fmt.Errorf("%s is %q, the reference reads %q", name, got[name], want)
		}
	}
	if c := strings.ReplaceAll(head["cookie"], ",", "; "); got["x-cookie"] != "" && strings.ReplaceAll(got["x-cookie"], ",", "; ") != c {
		return fmt.Errorf("cookie %q, the reference reads %q", got["x-cookie"], c)
	}
	if !bytes.HasPrefix(req.body, resp.body) {
		return fmt.Errorf("body %q, the reference reads %q", resp.body, req.body)
	}
	if resp.ended && (!req.ended || len(resp.body) != len(req.body)) {
		return fmt.Errorf("the answer is whole, the request was not (%d of %d bytes)", len(resp.body), len(req.body))
	}
	if len(resp.heads) > 1 && len(req.heads) > 1 && resp.heads[1]["x-trailer"] != req.heads[1]["x-trailer"] {
		return fmt.Errorf("trailer %q, the reference reads %q", resp.heads[1], req.heads[1])
	}
	return nil
}

// FuzzClient: whatever an upstream sends, the client does not panic and its stream ends; a response that it takes for
// whole is the one that the reference reads; what it sends keeps to the upstream's frames.
func FuzzClient(f *testing.F) {
	f.Add(frames(func(fr *xhttp2.Framer, _ func(...string) []byte) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
		_ = fr.WriteData(1, true, []byte("hello"))
	}))
	f.Add(frames(func(fr *xhttp2.Framer, block func(...string) []byte) {
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "103", "link", "x"), EndHeaders: true})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200", "content-length", "10"), EndHeaders: true})
		_ = fr.WriteDataPadded(1, false, []byte("hello"), []byte{0, 0, 0})
		_ = fr.WritePing(false, [8]byte{7})
		_ = fr.WriteData(1, false, []byte("world"))
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block("x-trailer", "t"), EndHeaders: true, EndStream: true})
		_ = fr.WriteGoAway(1, 0, nil)
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 32<<10 {
			return
		}
		a, b := memnet.Pipe(memnet.Link{Buffer: 4 << 20})
		_, _ = b.Write(data)
		_ = b.CloseWrite()
		cc, err := NewClientConn(context.Background(), netio.New(a), &msg.ConnInfo{}, ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		status, body, trailer, whole := 0, []byte(nil), "", false
		if x, err := cc.Start(); err == nil {
			err = x.WriteHead(&msg.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a")}, true)
			for err == nil && status < 200 {
				var r *msg.Response
				if r, err = x.ReadHead(); err == nil {
					status = r.Status
				}
			}
			for err == nil {
				var p []byte
				p, err = x.ReadBody()
				body = append(body, p...)
			}
			if whole = err == io.EOF && status >= 200; whole {
				if f := x.Trailers(); f != nil {
					trailer = string(f.Get("x-trailer"))
				}
			}
			x.Close()
		}
		cc.Close()
		<-cc.Done()
		out, _ := io.ReadAll(b)
		_ = b.Close()
		upstream := readModel(bytes.NewReader(data))
		upstream.answers(t, bytes.TrimPrefix(out, []byte(preface)))
		if !whole {
			return
		}
		s := upstream.streams[1]
		if !upstream.whole() && (s == nil || !s.ended) {
			return
		}
		if s == nil || s.bad && len(s.heads) == 0 {
			t.Fatalf("a response of status %d that the reference does not see", status)
		}
		i := 0
		for i < len(s.heads)-1 && len(s.heads[i][":status"]) == 3 && s.heads[i][":status"][0] == '1' {
			i++
		}
		want := s.heads[i]
		if want[":status"] != fmt.Sprint(status) || !bytes.Equal(s.body, body) && !bytes.HasPrefix(s.body, body) || !s.ended && !s.bad {
			t.Fatalf("status %d, body %q; the reference reads %+v", status, body, s)
		}
		if len(s.heads) > i+1 && s.heads[i+1]["x-trailer"] != trailer {
			t.Fatalf("trailer %q; the reference reads %+v", trailer, s.heads)
		}
	})
}
