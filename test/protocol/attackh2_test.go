package protocol

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// churn connects and leaves.
func churn(r *rig) (string, error) {
	for range 20 {
		c, err := dial(r.plain)
		if err != nil {
			return "", err
		}
		_ = c.Close()
	}
	return "closed", nil
}

// halfTLS sends the beginning of a ClientHello.
func halfTLS(r *rig) (string, error) {
	c, err := dial(r.tls)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(attackFor))
	if _, err := c.Read(make([]byte, 1)); isReset(err) {
		return "closed", nil
	}
	return "held", nil
}

// handshakes makes a whole handshake and leaves.
func handshakes(r *rig) (string, error) {
	c, err := dial(r.tls)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake(); err != nil {
		return "", err
	}
	return "closed", nil
}

// h2 begins a connection, lets write send frames until it fails or returns
// an error, and says how the proxy ended it: the first RST_STREAM or status that come, if any, and GOAWAY or "closed".
func h2(write func(h *h2conn, i int) error, settings ...http2.Setting) func(*rig) (string, error) {
	return func(r *rig) (string, error) {
		h, err := r.dialH2(r.plain, settings...)
		if err != nil {
			return "", err
		}
		defer h.Close()
		go func() {
			for i := 0; write(h, i) == nil; i++ {
			}
		}()
		for {
			f, err := h.ReadFrame()
			switch {
			case err != nil && isReset(err):
				return "closed", nil
			case err != nil:
				return "", err
			}
			if f, ok := f.(*http2.GoAwayFrame); ok {
				return "GOAWAY " + f.ErrCode.String(), nil
			}
		}
	}
}

var errDone = errors.New("done")

func attacksH2() []attack {
	calm := "GOAWAY ENHANCE_YOUR_CALM|closed"
	big := strings.Repeat("a", 4000)
	return []attack{
		{name: "rapid reset", conns: 4, pause: 200 * time.Millisecond, want: calm, run: h2(func(h *h2conn, i int) error {
			id := uint32(2*i + 1)
			if err := h.request(id, true, "GET", "/good"); err != nil {
				return err
			}
			return h.WriteRSTStream(id, http2.ErrCodeCancel)
		})},
		{name: "CONTINUATION without end", conns: 4, want: calm, run: h2(func(h *h2conn, i int) error {
			block := h.encode("x-many", fmt.Sprint(i))
			if i == 0 {
				return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
			}
			return h.WriteContinuation(1, false, block)
		})},
		{name: "empty CONTINUATION without end", conns: 4, want: calm, run: h2(func(h *h2conn, i int) error {
			if i == 0 {
				return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(":method", "GET")})
			}
			return h.WriteContinuation(1, false, nil)
		})},
		{name: "hpack bomb", conns: 4, pause: 50 * time.Millisecond, want: calm, run: h2(func(h *h2conn, i int) error {
			if i == 0 {
				return h.request(1, true, "GET", "/good", "x-bomb", big[:3900])
			}
			// One byte of each is 3,900 in memory: the entry that was added last.
			block := append(h.encode(":method", "GET", ":scheme", "http", ":path", "/good"), []byte(strings.Repeat("\xbe", 16000))...)
			return h.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndStream: true, EndHeaders: true, BlockFragment: block})
		})},
		{name: "header lists of a megabyte", conns: 4, want: calm, run: h2(func(h *h2conn, i int) error {
			id := uint32(2*i + 1)
			if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, BlockFragment: h.encode(":method", "GET", ":scheme", "http", ":path", "/")}); err != nil {
				return err
			}
			for k := range 256 {
				if err := h.WriteContinuation(id, k == 255, h.encode("x", big)); err != nil {
					return err
				}
			}
			return nil
		})},
		{name: "windows of zero", conns: 2, want: "RST_STREAM .*", run: zeroWindow},
		{name: "a window that overflows", conns: 4, want: "GOAWAY FLOW_CONTROL_ERROR", run: h2(func(h *h2conn, _ int) error { return h.WriteWindowUpdate(0, 1<<31-1) })},
		{name: "SETTINGS flood", conns: 4, want: calm, byRate: true, run: h2(func(h *h2conn, _ int) error {
			return h.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4096})
		})},
		{name: "PING flood", conns: 4, want: calm, byRate: true, run: h2(func(h *h2conn, _ int) error { return h.WritePing(false, [8]byte{1}) })},
		{name: "empty DATA flood", conns: 4, want: calm, run: h2(func(h *h2conn, i int) error {
			if i == 0 {
				return h.request(1, false, "POST", "/")
			}
			return h.WriteData(1, false, nil)
		})},
		{name: "PRIORITY flood", conns: 4, want: calm, byRate: true, run: h2(func(h *h2conn, i int) error {
			return h.WritePriority(uint32(2*(i%1000)+1), http2.PriorityParam{StreamDep: uint32(2*(i%1000) + 3)})
		})},
		{name: "WINDOW_UPDATE flood", conns: 4, want: calm, byRate: true, run: h2(func(h *h2conn, _ int) error { return h.WriteWindowUpdate(0, 1) })},
		{name: "frames of unknown types", conns: 4, want: calm, byRate: true, run: h2(func(h *h2conn, i int) error { return h.WriteRawFrame(0xf0, 0, 0, []byte("what?")) })},
		// The proxy may also have begun to drain the connection before it has had enough.
		{name: "resets by the server's doing", conns: 1, pause: 300 * time.Millisecond, want: calm + "|GOAWAY NO_ERROR", run: h2(func(h *h2conn, i int) error {
			id := uint32(2*i + 1)
			if err := h.request(id, false, "POST", "/"); err != nil {
				return err
			}
			return h.WriteWindowUpdate(id, 0)
		})},
		{name: "too many streams", conns: 1, pause: 300 * time.Millisecond, want: calm, run: h2(func(h *h2conn, i int) error { return h.request(uint32(2*i+1), false, "POST", "/") })},
		{name: "a bad preface", conns: 4, want: "closed|.*GOAWAY.*", run: func(r *rig) (string, error) {
			return h1(r.h2c, once("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), 0)
		}},
		{name: "a preface and silence", conns: 100, want: "GOAWAY .*|closed", run: func(r *rig) (string, error) {
			return h1(r.plain, once("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 0)
		}},
	}
}

// zeroWindow asks for much in many streams and lets nothing through.
func zeroWindow(r *rig) (string, error) {
	h, err := r.dialH2(r.plain, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	if err != nil {
		return "", err
	}
	defer h.Close()
	for i := range 20 {
		if err := h.request(uint32(2*i+1), true, "GET", "/big"); err != nil {
			return "", err
		}
	}
	for {
		f, err := h.next()
		if err != nil {
			return "", err
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			return "RST_STREAM " + f.ErrCode.String(), nil
		case *http2.GoAwayFrame:
			return "GOAWAY " + f.ErrCode.String(), nil
		}
	}
}
