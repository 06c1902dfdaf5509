package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// grpcUpstream is an HTTP/2 server that answers as gRPC servers do.
func grpcUpstream(t *testing.T, up *backends) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m := &message{first: r.Method + " " + r.RequestURI + " " + r.Proto, lines: append(headerLines(r.Header), "host: "+r.Host), body: string(body), trailers: headerLines(r.Trailer)}
		if r.URL.Path != unseen {
			up.note("upstream grpc\n"+m.text(), true)
		}
		h := w.Header()
		h.Set("content-type", "application/grpc")
		h["Date"] = nil
		do := r.Header.Get("x-do")
		switch {
		case do == "only":
			h.Set("grpc-status", "5")
			h.Set("grpc-message", "not here")
			return
		case do == "slow":
			time.Sleep(200 * time.Millisecond)
		case do == "503":
			h.Del("content-type")
			w.WriteHeader(503)
			return
		case do == "abort":
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte("\x00\x00\x00\x00\x02hi"))
		h.Set(http.TrailerPrefix+"grpc-status", "0")
		h.Set(http.TrailerPrefix+"x-trailer", "t")
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

func headerLines(h http.Header) []string {
	var out []string
	for k, vs := range h {
		for _, v := range vs {
			out = append(out, strings.ToLower(k)+": "+v)
		}
	}
	slices.Sort(out)
	return out
}

// grpcCase is a request over HTTP/2 with prior knowledge.
type grpcCase struct {
	name, path string
	header     []string
	body       string
	method     string // default POST
	host       string // default grpc.test
}

var grpcCases = []grpcCase{
	{name: "a call with trailers", path: "/pkg.Svc/Do", header: []string{"content-type: application/grpc", "te: trailers"}},
	{name: "a trailers-only answer", path: "/pkg.Svc/Do", header: []string{"content-type: application/grpc", "te: trailers", "x-do: only"}},
	{name: "no endpoint is a trailers-only UNAVAILABLE", path: "/empty", header: []string{"content-type: application/grpc"}},
	{name: "no endpoint with a gRPC subtype", path: "/empty", header: []string{"content-type: application/grpc+proto"}},
	{name: "no endpoint for grpc-web is not gRPC", path: "/empty", header: []string{"content-type: application/grpc-web"}},
	{name: "a time-out is DEADLINE_EXCEEDED", path: "/timeout", header: []string{"content-type: application/grpc", "x-do: slow"}},
	{name: "an abort with a gRPC status", path: "/abort", header: []string{"content-type: application/grpc"}},
	{name: "an abort with a gRPC status for plain HTTP", path: "/abort"},
	{name: "a 503 of the upstream stays one", path: "/pkg.Svc/Do", header: []string{"content-type: application/grpc", "x-do: 503"}},
	{name: "an upstream that aborts", path: "/pkg.Svc/Do", header: []string{"content-type: application/grpc", "x-do: abort"}},
	{name: "grpc-timeout is passed on", path: "/pkg.Svc/Do", header: []string{"content-type: application/grpc", "grpc-timeout: 5S"}},
	{name: "from HTTP/2 to HTTP/1", path: "/h1/x?y=1", body: "hello", header: []string{"x-do: chunked"}},
	{name: "from HTTP/2 to HTTP/1 without a body", path: "/h1/x", method: "GET", header: []string{"cookie: a=1; b=2"}},
	{name: "HEAD from HTTP/2 to HTTP/1", path: "/h1/x", method: "HEAD"},
	{name: "no content", path: "/h1/x", method: "GET", header: []string{"x-do: status=204"}},
	{name: "an unknown host", path: "/", method: "GET", host: "unknown.test"},
	{name: "an unknown host for gRPC", path: "/", host: "unknown.test", header: []string{"content-type: application/grpc"}},
	{name: "denied for gRPC", path: "/secret/x", header: []string{"content-type: application/grpc"}},
	{name: "denied", path: "/secret/x", method: "GET"},
	{name: "a redirect", path: "/uri", method: "GET", host: "redirect.test"},
	{name: "a direct response", path: "/exact", method: "GET", host: "match.test"},
	{name: "a host with port and case", path: "/exact", method: "GET", host: "Match.Test:8080"},
	{name: "a path with dots", path: "/x/../exact", method: "GET", host: "match.test"},
	web("a call", "/pkg.Svc/Do", "application/grpc-web", "", message2),
	web("a call with its coding", "/pkg.Svc/Do", "application/grpc-web+proto", "", message2, "grpc-accept-encoding: gzip"),
	web("a call in text", "/pkg.Svc/Do", "application/grpc-web-text", "application/grpc-web-text", "AAAAAAJoaQ=="),
	web("a call in text with its coding", "/pkg.Svc/Do", "application/grpc-web-text+proto", "application/grpc-web-text+proto", "AAAAAAJoaQ=="),
	web("text asked for in binary", "/pkg.Svc/Do", "application/grpc-web+proto", "application/grpc-web-text", message2),
	web("binary asked for in text", "/pkg.Svc/Do", "application/grpc-web-text", "application/grpc-web", "AAAAAAJoaQ=="),
	web("text that is not whole", unseen, "application/grpc-web-text", "application/grpc-web-text", "AAAAAAJoaQ="),
	web("text that is none", unseen, "application/grpc-web-text", "", "!!!!"),
	web("no body", "/pkg.Svc/Do", "application/grpc-web-text", "", ""),
	web("a trailers-only answer", "/pkg.Svc/Do", "application/grpc-web", "", message2, "x-do: only"),
	web("a 503 of the upstream", "/pkg.Svc/Do", "application/grpc-web", "", message2, "x-do: 503"),
	web("an upstream that aborts", "/pkg.Svc/Do", "application/grpc-web", "", message2, "x-do: abort"),
	web("an answer that is no gRPC", "/h1/x", "application/grpc-web", "", message2),
	web("no endpoint", "/empty", "application/grpc-web", "", message2),
	web("no endpoint, in text", "/empty", "application/grpc-web-text", "application/grpc-web-text", "AAAAAAJoaQ=="),
	web("a time-out", "/timeout", "application/grpc-web", "", message2, "x-do: slow"),
	web("an abort", "/abort", "application/grpc-web", "", message2),
	web("a direct response", "/direct", "application/grpc-web", "", message2),
	web("another coding is not gRPC-Web", "/empty", "application/grpc-web+json", "", message2),
	web("a parameter is not gRPC-Web", "/empty", "application/grpc-web; a=b", "", message2),
	web("plain gRPC beside it", "/pkg.Svc/Do", "application/grpc", "", message2),
	{name: "gRPC-Web: a preflight passes", host: "web.test", method: "OPTIONS", path: "/h1/x", header: []string{"origin: http://a.test", "access-control-request-method: POST"}},
	{name: "a name that HTTP/1 forbids in a host", path: "/h1/x", method: "GET", host: "grpc.test:1"},
}

// unseen is a path whose requests are not noted: with Envoy it is a matter of time whether they arrive.
const unseen = "/pkg.Svc/Unseen"

// message2 is a message of two bytes.
const message2 = "\x00\x00\x00\x00\x02hi"

// web is a request as a browser's gRPC-Web client makes it.
func web(name, path, contentType, accept, body string, header ...string) grpcCase {
	h := append([]string{"content-type: " + contentType, "x-grpc-web: 1"}, header...)
	if accept != "" {
		h = append(h, "accept: "+accept)
	}
	return grpcCase{name: "gRPC-Web: " + name, host: "web.test", path: path, header: h, body: body}
}

// grpcOutcome sends the case to a proxy and tells what came back and arrived.
func (p *proxies) grpcOutcome(t *testing.T, address string, c grpcCase) string {
	t.Helper()
	p.up.drain()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(p.port)))
	}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), p.wait(3*time.Second))
	defer cancel()
	method, host := c.method, c.host
	if method == "" {
		method = "POST"
	}
	if host == "" {
		host = "grpc.test"
	}
	var body io.Reader
	if method == "POST" {
		body = bytes.NewReader([]byte(c.body))
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://proxy"+c.path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("user-agent", "test")
	req.Header.Set("accept-encoding", "identity")
	for _, h := range c.header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "error\n" + strings.Join(p.up.drain(), "")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	m := &message{first: fmt.Sprintf("%s %d", resp.Proto, resp.StatusCode), lines: headerLines(resp.Header), body: string(b), trailers: headerLines(resp.Trailer)}
	out := m.text()
	if err != nil {
		out += "cut\n"
	}
	return out + strings.Join(p.up.drain(), "")
}

func (p *proxies) runGRPC(t *testing.T, suite string) {
	for _, c := range grpcCases {
		if c.host == "unknown.test" && suite == "sidecar" {
			continue // is passed through, back to the proxy
		}
		t.Run(c.name, func(t *testing.T) {
			p.judge(t, suite, c.name, func() (ours, theirs string) {
				return p.grpcOutcome(t, weftAddress, c), p.grpcOutcome(t, envoyAddress, c)
			})
		})
	}
}
