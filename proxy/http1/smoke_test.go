package http1

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// listen serves h on loopback until the test ends.
func listen(t testing.TB, o ServerOptions, h func(context.Context, stream.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []chan struct{}
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			end := make(chan struct{})
			conns = append(conns, end)
			go func() {
				defer close(end)
				_ = ServeConn(ctx, netio.New(c), o, h)
			}()
		}
		for _, c := range conns {
			<-c
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		<-done
	})
	return l.Addr().String()
}

// echo answers with the request's body and head.
func echo(_ context.Context, s stream.Server) {
	var body bytes.Buffer
	for {
		p, err := s.ReadBody()
		if err == io.EOF {
			break
		}
		if err != nil {
			s.Abort()
			return
		}
		body.Write(p)
	}
	r := s.Request()
	var resp stream.Response
	resp.Status = 200
	resp.Fields.Add("x-method", string(r.Method))
	resp.Fields.Add("x-path", string(r.Path))
	resp.Fields.Add("x-authority", string(r.Authority))
	if t := s.RequestTrailers(); t != nil {
		resp.Fields.Add("x-trailer", string(t.Get("x-trailer")))
	}
	resp.ContentLength = int64(body.Len())
	_ = s.WriteHead(&resp, body.Len() == 0)
	if body.Len() > 0 {
		_ = s.WriteBody(body.Bytes(), true)
	}
}

func TestNetHTTPClientAgainstOurServer(t *testing.T) {
	addr := listen(t, ServerOptions{}, echo)
	client := &nethttp.Client{Transport: &nethttp.Transport{}}
	defer client.CloseIdleConnections()
	for _, size := range []int{0, 1, 1000, 16 << 10, 100_000, 3 << 20} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("a body of %d bytes, chunked %v", size, chunked), func(t *testing.T) {
				want := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
				var rd io.Reader = bytes.NewReader(want)
				if chunked {
					rd = io.MultiReader(rd)
				}
				req, _ := nethttp.NewRequest("POST", "http://"+addr+"/a?b=c", rd)
				if chunked {
					req.Trailer = nethttp.Header{"X-Trailer": {"end"}}
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
				if p := resp.Header.Get("X-Path"); p != "/a?b=c" {
					t.Errorf("path %q", p)
				}
				if chunked && size > 0 && resp.Header.Get("X-Trailer") != "end" {
					t.Errorf("trailer %q", resp.Header.Get("X-Trailer"))
				}
			})
		}
	}
}

func TestOurClientAgainstNetHTTPServer(t *testing.T) {
	srv := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.URL.RequestURI())
		w.Header().Set("X-Host", r.Host)
		if r.Header.Get("X-Chunked") != "" {
			w.(nethttp.Flusher).Flush()
		}
		_, _ = w.Write(b)
	}))
	defer srv.Close()
	nc, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	released := 0
	cc := NewClientConn(netio.New(nc), &stream.ConnInfo{}, ClientOptions{OnRelease: func(_ *ClientConn, ok bool) {
		if ok {
			released++
		}
	}})
	defer cc.Close()
	n := 0
	for _, size := range []int{0, 5, 20_000, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			n++
			want := bytes.Repeat([]byte("x"), size)
			if !cc.Usable() {
				t.Fatal("not usable")
			}
			x, err := cc.Start()
			if err != nil {
				t.Fatal(err)
			}
			req := &stream.Request{Method: []byte("POST"), Path: []byte("/p?q"), Authority: []byte("h.example"), ContentLength: int64(size)}
			if chunked {
				req.ContentLength = stream.UnknownLength
				req.Fields.Add("X-Chunked", "1")
			}
			if err := x.WriteHead(req, false); err != nil {
				t.Fatal(err)
			}
			if err := x.WriteBody(want, true); err != nil {
				t.Fatal(err)
			}
			resp, err := x.ReadHead()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(resp.Fields.Get("x-host")); got != "h.example" && !chunked {
				t.Errorf("host %q", got)
			}
			var got bytes.Buffer
			for {
				p, err := x.ReadBody()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got.Write(p)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Fatalf("size %d: got %d bytes", size, got.Len())
			}
			x.Close()
		}
	}
	if released != n {
		t.Errorf("released %d of %d", released, n)
	}
}

func TestPipelinedRequestsAreServedInOrder(t *testing.T) {
	addr := listen(t, ServerOptions{}, echo)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var in strings.Builder
	for i := range 50 {
		fmt.Fprintf(&in, "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n", i)
	}
	go func() {
		for _, b := range []byte(in.String()) {
			_, _ = c.Write([]byte{b})
		}
	}()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(c)
	for i := range 50 {
		resp, err := nethttp.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		b, _ := io.ReadAll(resp.Body)
		if resp.Header.Get("x-path") != fmt.Sprintf("/%d", i) || string(b) != "abc" {
			t.Fatalf("response %d: %v %q", i, resp.Header, b)
		}
	}
}
