package soak

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// newH2 is a client over HTTP/2, by prior knowledge or ALPN.
func newH2() *http2.Transport {
	return &http2.Transport{AllowHTTP: true, IdleConnTimeout: 4 * time.Second, ReadIdleTimeout: 0,
		DialTLSContext: func(_ context.Context, _, addr string, _ *tls.Config) (net.Conn, error) {
			return dialTo(h2Addr(addr), "h2")
		}}
}

// h2Addr: a transport knows hosts, not how to connect: TLS listeners are dialed as tls.127.0.0.1.
func h2Addr(addr string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "secure.test" {
		return "tls:127.0.0.1:" + port
	}
	return addr
}

func runH2(ctx context.Context, tr *http2.Transport, addr string, o op) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	if rest, ok := bytes.CutPrefix([]byte(addr), []byte("tls:127.0.0.1")); ok {
		addr = "secure.test" + string(rest)
	}
	var body io.Reader
	if o.send >= 0 {
		body = &pieces{b: o.sent()}
	}
	req, err := http.NewRequestWithContext(ctx, o.method, "http://"+addr+o.path(), body)
	if err != nil {
		return err
	}
	req.Host = "app"
	if body != nil { // a request that the proxy has not taken may be sent again
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(&pieces{b: o.sent()}), nil }
	}
	if o.send >= 0 && !o.chunked {
		req.ContentLength = int64(o.send)
	}
	req.Header.Set("x-id", o.id)
	req.Header.Set("x-sum", sumOf(o.sent()))
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if o.fault == abort && resp.Header.Get("x-soak") != "" {
		_, err := compare(io.LimitReader(resp.Body, int64(o.size/2)), io.LimitReader(o.want().body(), int64(o.size/2)))
		cancel()
		return errIfWrong(err)
	}
	return checkResponse(resp, o)
}

// pieces is a body whose length the transport does not guess.
type pieces struct{ b []byte }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 10000)], p.b)
	p.b = p.b[n:]
	return n, nil
}
