package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	nethttp "net/http"
	"net/http/httputil"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// FuzzRequest: whatever we accept, net/http must understand in the same way: method, target,
// host, fields, body, and where the next request begins.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /p?q HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabcGET / HTTP/1.1\r\nHost: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
		"GET http://b/x HTTP/1.1\r\nHost: a\r\nConnection: close, X\r\nX: 1\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 8<<10 {
			return
		}
		var ours []seen
		a, b := memnet.Pipe(memnet.Link{Buffer: 1 << 20})
		_, _ = a.Write(data)
		_ = a.CloseWrite()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(context.Background(), netio.New(b), ServerOptions{AllowHTTP10: true}, func(_ context.Context, s stream.Server) {
				ours = append(ours, look(s))
			})
		}()
		_, _ = io.Copy(io.Discard, a)
		<-done
		_ = a.Close()

		ref := bufio.NewReader(bytes.NewReader(data))
		for i, s := range ours {
			for p, _ := ref.Peek(2); string(p) == "\r\n"; p, _ = ref.Peek(2) {
				_, _ = ref.Discard(2)
			}
			r, err := nethttp.ReadRequest(ref)
			if err != nil {
				if s.method == "CONNECT" || s.host == "" { // net/url is stricter about authorities
					return
				}
				if strings.Contains(err.Error(), "invalid URL") || strings.Contains(err.Error(), "invalid port") || strings.Contains(err.Error(), "parse ") {
					return // a path like /%zz: what it means is for the application to say
				}
				t.Fatalf("request %d: we accepted %+v, net/http says %v", i, s, err)
			}
			s.compare(t, r)
			if s.bodyErr != nil || s.raw {
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(body, s.body) {
				t.Fatalf("request %d: body %q, net/http reads %q, %v", i, s.body, body, err)
			}
		}
	})
}

// seen is a copy of a request as a handler saw it.
type seen struct {
	method, path, host string
	fields             [][2]string
	body               []byte
	bodyErr            error
	raw                bool
}

func look(s stream.Server) seen {
	r := s.Request()
	v := seen{method: string(r.Method), path: string(r.Path), host: string(r.Authority), raw: r.Upgrade != nil || string(r.Method) == "CONNECT"}
	for _, f := range r.Fields.All() {
		v.fields = append(v.fields, [2]string{string(f.Name), string(f.Value)})
	}
	if v.raw {
		s.Abort()
		return v
	}
	for {
		p, err := s.ReadBody()
		if err == io.EOF {
			break
		}
		if err != nil {
			v.bodyErr = err
			break
		}
		v.body = append(v.body, p...)
	}
	_ = s.WriteHead(&stream.Response{Status: 200}, true)
	return v
}

func (s seen) compare(t *testing.T, r *nethttp.Request) {
	t.Helper()
	if r.Method != s.method || r.Host != s.host && s.host != "" {
		t.Fatalf("%s %s, net/http reads %s %s", s.method, s.host, r.Method, r.Host)
	}
	if s.method != "CONNECT" && strings.HasPrefix(r.RequestURI, "/") && r.RequestURI != s.path {
		t.Fatalf("path %q, net/http reads %q", s.path, r.RequestURI)
	}
	left := map[string][]string{}
	for k, v := range r.Header {
		left[k] = append([]string(nil), v...)
	}
	for _, f := range s.fields {
		k := textproto.CanonicalMIMEHeaderKey(f[0])
		if k == "Content-Length" || k == "Trailer" { // net/http takes these out
			continue
		}
		v := left[k]
		if len(v) == 0 || v[0] != f[1] {
			t.Fatalf("field %q: %q, net/http reads %q", k, f[1], v)
		}
		left[k] = v[1:]
	}
}

// FuzzChunks: however the input is cut, the decoder gives the same; it takes exactly what a slow
// reading of the grammar takes (RFC 9112 section 7.1), and the standard library reads that the same way.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\n"), 1)
	f.Add([]byte("A;x=\"y\"\r\n0123456789\r\n00\r\nX: y\r\nZ: a\r\n\r\nrest"), 3)
	f.Add([]byte("0\r\n\r\n"), 2)
	f.Add([]byte("1;\r\na\r\n0;a\tb\r\nX\r\n\r\n"), 4)
	f.Add([]byte("000000000000001\r\na\r\n0000000000000000\r\n\r\n"), 7)
	f.Add([]byte("1\na\r\n0\r\n\r\n"), 1)
	f.Add([]byte("1 \r\na\r\n0\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		if cut < 1 || len(data) > 4<<10 {
			return
		}
		wholeBody, wholeLines, used, ok := decodeAll(data, len(data)+1)
		body, lines, used2, ok2 := decodeAll(data, cut)
		if ok != ok2 || ok && (used != used2 || !bytes.Equal(wholeBody, body) || !bytes.Equal(wholeLines, lines)) {
			t.Fatalf("in one piece: %q %q %d %v; in pieces of %d: %q %q %d %v", wholeBody, wholeLines, used, ok, cut, body, lines, used2, ok2)
		}
		slowBody, slowLines, slowUsed, slowOK := slowChunks(data)
		if ok != slowOK || ok && (used != slowUsed || !bytes.Equal(slowBody, body) || !bytes.Equal(slowLines, lines)) {
			t.Fatalf("%q %q %d %v; the grammar says %q %q %d %v", body, lines, used, ok, slowBody, slowLines, slowUsed, slowOK)
		}
		if !ok {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(data)))
		if err != nil || !bytes.Equal(want, body) {
			t.Fatalf("%q; the reference reads %q, %v", body, want, err)
		}
	})
}

var (
	chunkLine   = regexp.MustCompile(`(?s-m)^([0-9a-fA-F]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?\r\n`)
	trailerPart = regexp.MustCompile(`(?s-m)^((?:[^\r\n][^\r\n]*\r\n)*)\r\n`)
)

// latin1 lets a regular expression see bytes.
func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

// slowChunks reads a whole message by its grammar.
func slowChunks(data []byte) (body, lines []byte, used int, ok bool) {
	for {
		m := chunkLine.FindStringSubmatch(latin1(data[used:]))
		if m == nil {
			return nil, nil, 0, false
		}
		n, _ := strconv.ParseInt(m[1], 16, 64)
		used += len([]rune(m[0]))
		if n == 0 {
			break
		}
		if n > int64(len(data)) || used+int(n)+2 > len(data) || string(data[used+int(n):used+int(n)+2]) != "\r\n" {
			return nil, nil, 0, false
		}
		body = append(body, data[used:used+int(n)]...)
		used += int(n) + 2
	}
	m := trailerPart.FindStringSubmatch(latin1(data[used:]))
	if m == nil || len([]rune(m[1])) > 1000 {
		return nil, nil, 0, false
	}
	n := len([]rune(m[1]))
	return body, append(lines, data[used:used+n]...), used + n + 2, true
}

func decodeAll(data []byte, cut int) (body, lines []byte, used int, ok bool) {
	d := chunks{max: 1000}
	for used < len(data) && d.state != chunkDone {
		in := data[used:min(used+cut, len(data))]
		for len(in) > 0 && d.state != chunkDone {
			p, line, n, err := d.step(in)
			if err != nil {
				return nil, nil, 0, false
			}
			body, lines, used, in = append(body, p...), append(lines, line...), used+n, in[n:]
		}
	}
	return body, lines, used, d.state == chunkDone
}

// FuzzResponse: whatever an upstream sends, the client does not panic, and what it
// takes for a complete response net/http reads the same way.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), uint8(0))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX: y\r\n\r\n"), uint8(0))
	f.Add([]byte("HTTP/1.0 200\r\n\r\nuntil the end"), uint8(2))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), uint8(1))
	f.Add([]byte("HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"), uint8(2))
	f.Add([]byte("HTTP/1.1 204 No\r\n\r\nmore"), uint8(0))
	methods := []string{"GET", "HEAD", "POST"}
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		method := methods[int(kind)%len(methods)]
		if len(data) > 8<<10 {
			return
		}
		a, b := memnet.Pipe(memnet.Link{Buffer: 1 << 20})
		_, _ = b.Write(data)
		_ = b.CloseWrite()
		defer b.Close()
		cc := NewClientConn(netio.New(a), &stream.ConnInfo{}, ClientOptions{})
		defer cc.Close()
		x, err := cc.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		_ = x.WriteHead(&stream.Request{Method: []byte(method), Authority: []byte("a"), Path: []byte("/")}, true)
		ref := bufio.NewReader(bytes.NewReader(data))
		for {
			r, err := x.ReadHead()
			if err != nil {
				return
			}
			want, err := nethttp.ReadResponse(ref, &nethttp.Request{Method: method})
			for err == nil && want.StatusCode == 100 && r.Status != 100 {
				want, err = nethttp.ReadResponse(ref, &nethttp.Request{Method: method})
			}
			if err != nil || want.StatusCode != r.Status {
				t.Fatalf("status %d, net/http reads %+v, %v", r.Status, want, err)
			}
			if r.Status < 200 {
				continue
			}
			var body []byte
			for {
				p, err := x.ReadBody()
				if err == io.EOF {
					break
				}
				if err != nil {
					return
				}
				body = append(body, p...)
			}
			if got, err := io.ReadAll(want.Body); err != nil || !bytes.Equal(got, body) {
				t.Fatalf("body %q, net/http reads %q, %v", body, got, err)
			}
			return
		}
	})
}

// FuzzValue holds the fast check of field values to the slow one.
func FuzzValue(f *testing.F) {
	f.Add([]byte("0123456789\x7f"))
	f.Add([]byte("grüße\tandmore"))
	f.Fuzz(func(t *testing.T, b []byte) {
		want := true
		for _, c := range b {
			if c < ' ' && c != '\t' || c == 0x7f {
				want = false
			}
		}
		if stream.ValidValue(b) != want {
			t.Fatalf("%q: want %v", b, want)
		}
	})
}
