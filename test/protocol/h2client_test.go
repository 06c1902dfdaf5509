package protocol

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2conn is a client that may send what it likes: frames are written as told, nothing is answered but by [h2conn.next].
type h2conn struct {
	net.Conn
	*http2.Framer
	enc   *hpack.Encoder
	dec   *hpack.Decoder
	block bytes.Buffer
}

// dial connects to a port of the rig.
func dial(port int) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 10*time.Second)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(30 * time.Second))
}

// dialTLS connects to the TLS port and offers one protocol.
func (r *rig) dialTLS(alpn string) (net.Conn, error) {
	c, err := dial(r.tls)
	if err != nil {
		return nil, err
	}
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13}), nil
}

// dialH2 connects with prior knowledge, or by ALPN on the TLS port, and sends preface and SETTINGS.
func (r *rig) dialH2(port int, settings ...http2.Setting) (*h2conn, error) {
	c, err := dial(port)
	if err != nil {
		return nil, err
	}
	if port == r.tls {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		_ = c.Close()
		return nil, err
	}
	h := &h2conn{Conn: c, Framer: http2.NewFramer(c, c), dec: hpack.NewDecoder(4096, nil)}
	h.AllowIllegalWrites = true
	h.enc = hpack.NewEncoder(&h.block)
	if err := h.WriteSettings(settings...); err != nil {
		_ = c.Close()
		return nil, err
	}
	return h, nil
}

// encode is a header block of pairs.
func (h *h2conn) encode(pairs ...string) []byte {
	h.block.Reset()
	for i := 0; i+1 < len(pairs); i += 2 {
		_ = h.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // a buffer takes everything
	}
	return bytes.Clone(h.block.Bytes())
}

// request opens a stream.
func (h *h2conn) request(id uint32, end bool, method, path string, more ...string) error {
	block := h.encode(append([]string{":method", method, ":scheme", "http", ":authority", "app", ":path", path}, more...)...)
	return h.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: block})
}

// next reads a frame, answering SETTINGS and PING.
func (h *h2conn) next() (http2.Frame, error) {
	for {
		f, err := h.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			if err := h.WriteSettingsAck(); err != nil {
				return nil, err
			}
			continue
		case *http2.PingFrame:
			if f.IsAck() {
				continue
			}
			if err := h.WritePing(true, f.Data); err != nil {
				return nil, err
			}
			continue
		}
		return f, nil
	}
}

// status reads frames up to the head of a response and returns its status.
func (h *h2conn) status(t testing.TB) string {
	t.Helper()
	for {
		f, err := h.next()
		if err != nil {
			t.Fatal(err)
		}
		if head, ok := f.(*http2.HeadersFrame); ok {
			fields, err := h.dec.DecodeFull(head.HeaderBlockFragment())
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range fields {
				if x.Name == ":status" {
					return x.Value
				}
			}
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			t.Fatalf("stream reset: %v", f.ErrCode)
		case *http2.GoAwayFrame:
			t.Fatalf("GOAWAY %v %q", f.ErrCode, f.DebugData())
		}
	}
}
