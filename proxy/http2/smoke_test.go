package http2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"weft.mesh/weft/proxy/netio"
	msg "weft.mesh/weft/proxy/stream"
)

// listen serves h on loopback until the test ends.
func listen(t testing.TB, o ServerOptions, h func(context.Context, msg.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = ServeConn(ctx, netio.New(c), o, h) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		wg.Wait()
	})
	return l.Addr().String()
}

// echo answers with the request's head and body.
func echo(_ context.Context, s msg.Server) {
	r := s.Request()
	resp := msg.Response{Status: 200, ContentLength: msg.UnknownLength}
	resp.Fields.Add("X-Method", string(r.Method))
	resp.Fields.Add("X-Path", string(r.Path))
	resp.Fields.Add("X-Authority", string(r.Authority))
	if v := r.Fields.Get("cookie"); v != nil {
		resp.Fields.SetBytes("x-cookie", v)
	}
	if s.WriteHead(&resp, false) != nil {
		return
	}
	for {
		p, err := s.ReadBody()
		if err == io.EOF {
			break
		}
		if err != nil || s.WriteBody(p, false) != nil {
			s.Abort()
			return
		}
	}
	var trailers msg.Fields
	if t := s.RequestTrailers(); t != nil {
		trailers.Add("X-Trailer", string(t.Get("x-trailer")))
	}
	_ = s.WriteTrailers(&trailers)
}

func h2cClient(t testing.TB) *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestNetHTTPClientAgainstOurServer(t *testing.T) {
	addr := listen(t, ServerOptions{}, echo)
	client := h2cClient(t)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			for _, size := range []int{0, 1, 1000, 16 << 10, 100_000, 1 << 20} {
				want := bytes.Repeat([]byte{byte(i)}, size)
				req, _ := http.NewRequest("POST", "http://"+addr+"/a?b=c", io.MultiReader(bytes.NewReader(want)))
				req.Trailer = http.Header{"X-Trailer": {"end"}}
				req.AddCookie(&http.Cookie{Name: "a", Value: "1"})
				req.AddCookie(&http.Cookie{Name: "b", Value: fmt.Sprint(i)})
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("size %d: got %d bytes, %v", size, len(got), err)
				}
				if resp.Trailer.Get("X-Trailer") != "end" || resp.Header.Get("X-Path") != "/a?b=c" {
					t.Errorf("%v %v", resp.Header, resp.Trailer)
				}
				if c := resp.Header.Get("X-Cookie"); c != fmt.Sprintf("a=1; b=%d", i) {
					t.Errorf("cookie %q", c)
				}
			}
		})
	}
	wg.Wait()
}

func TestOurClientAgainstNetHTTPServer(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.RequestURI())
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("Trailer", "X-End")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-End", "yes")
	}))
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	srv.Config.Protocols = &p
	srv.Start()
	defer srv.Close()
	nc, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cc, err := NewClientConn(t.Context(), netio.New(nc), &msg.ConnInfo{}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			for _, size := range []int{0, 5, 20_000, 1 << 20} {
				roundTrip(t, cc, bytes.Repeat([]byte{byte(i)}, size))
			}
		})
	}
	wg.Wait()
	if n := cc.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	cc.Close()
	<-cc.Done()
}

func roundTrip(t *testing.T, cc *ClientConn, want []byte) {
	x, err := cc.Start()
	if err != nil {
		t.Error(err)
		return
	}
	defer x.Close()
	req := &msg.Request{Method: []byte("POST"), Path: []byte("/p?q"), Authority: []byte("h.example"), ContentLength: int64(len(want))}
	req.Fields.Add("X-Some", "thing")
	if err := x.WriteHead(req, false); err != nil {
		t.Error(err)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := x.WriteBody(want, true); err != nil {
			t.Error(err)
		}
	})
	resp, err := x.ReadHead()
	if err != nil {
		t.Error(err)
		return
	}
	if string(resp.Fields.Get("x-host")) != "h.example" || string(resp.Fields.Get("x-path")) != "/p?q" {
		t.Errorf("%v", resp.Fields)
	}
	var got bytes.Buffer
	for {
		p, err := x.ReadBody()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Error(err)
			return
		}
		got.Write(p)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got %d bytes of %d", got.Len(), len(want))
	}
	if string(x.Trailers().Get("x-end")) != "yes" {
		t.Errorf("trailers %v", x.Trailers())
	}
}
