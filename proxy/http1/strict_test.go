package http1

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// talk sends input to a server and returns all it answers, with what the codec refused.
func talk(t *testing.T, o ServerOptions, input string) (output string, refused []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(memnet.Link{})
		client := netio.New(a)
		o.OnProtocolError = func(status int, details string) {
			refused = append(refused, fmt.Sprintf("%d %s", status, details))
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(t.Context(), netio.New(b), o, echo)
		}()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			_, _ = client.Write([]byte(input))
			time.Sleep(time.Minute) // in fake time: longer than any timeout in the tests
			_ = client.CloseWrite()
		})
		out, _ := io.ReadAll(client)
		_ = client.Close()
		<-done
		output = string(out)
	})
	return output, refused
}

func TestWhatIsRefused(t *testing.T) {
	const host = "Host: a\r\n"
	long := strings.Repeat("x", 5000)
	tests := map[string]struct {
		input   string
		status  int
		details string
	}{
		"bare LF after the request line":         {"GET / HTTP/1.1\n" + host + "\r\n", 400, detailsCodec},
		"bare LF after a field":                  {"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400, detailsCodec},
		"bare LF as the empty line":              {"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, detailsCodec},
		"bare CR in a value":                     {"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400, detailsCharacters},
		"NUL in a value":                         {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, detailsCharacters},
		"DEL in a value":                         {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb, and something long\r\n\r\n", 400, detailsCharacters},
		"a control character in a long value":    {"GET / HTTP/1.1\r\nHost: a\r\nX: 12345678\x0112345678\r\n\r\n", 400, detailsCharacters},
		"a folded line":                          {"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, detailsCodec},
		"a folded line with a colon":             {"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b: c\r\n\r\n", 400, detailsCharacters},
		"a line folded right after the first":    {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, detailsCharacters},
		"space before the colon":                 {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, detailsCharacters},
		"tab before the colon":                   {"GET / HTTP/1.1\r\nHost: a\r\nX\t: a\r\n\r\n", 400, detailsCharacters},
		"an empty name":                          {"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", 400, detailsCharacters},
		"no colon":                               {"GET / HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n", 400, detailsCodec},
		"content-length and transfer-encoding":   {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, detailsCLAndTE},
		"two different content-lengths":          {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, detailsLength},
		"the same content-length twice":          {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, detailsLength},
		"a content-length list":                  {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", 400, detailsLength},
		"a signed content-length":                {"POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", 400, detailsLength},
		"a huge content-length":                  {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400, detailsLength},
		"an empty content-length":                {"POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", 400, detailsLength},
		"a second transfer coding":               {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", 400, detailsTE},
		"transfer-encoding twice":                {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, detailsTE},
		"transfer-encoding identity":             {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", 400, detailsTE},
		"a decorated chunked":                    {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked;q=1\r\n\r\n", 400, detailsTE},
		"chunked in HTTP/1.0":                    {"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, detailsTE},
		"Connection that names Host":             {"GET / HTTP/1.1\r\n" + host + "Connection: close, HOST\r\n\r\n", 400, detailsConnection},
		"Connection that names X-Forwarded-For":  {"GET / HTTP/1.1\r\n" + host + "Connection: X-Forwarded-For\r\n\r\n", 400, detailsConnection},
		"no Host":                                {"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400, detailsMissingHost},
		"two Hosts":                              {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, detailsMissingHost},
		"a Host with a slash":                    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, detailsCharacters},
		"a Host with user info":                  {"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n", 400, detailsCharacters},
		"HTTP/2.0 on the request line":           {"GET / HTTP/2.0\r\n" + host + "\r\n", 505, detailsVersion},
		"HTTP/1.2":                               {"GET / HTTP/1.2\r\n" + host + "\r\n", 505, detailsVersion},
		"HTTP/0.9":                               {"GET /\r\n\r\n", 400, detailsCodec},
		"a version in lower case":                {"GET / http/1.1\r\n" + host + "\r\n", 400, detailsCodec},
		"two spaces after the method":            {"GET  / HTTP/1.1\r\n" + host + "\r\n", 400, detailsCodec},
		"a method with a colon":                  {"GE:T / HTTP/1.1\r\n" + host + "\r\n", 400, detailsCodec},
		"a TLS hello":                            {"\x16\x03\x01\x02\x00\x01\x00", 400, detailsCodec},
		"a path with a fragment":                 {"GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400, detailsURL},
		"a path with a byte above ASCII":         {"GET /\xc3\xbc HTTP/1.1\r\n" + host + "\r\n", 400, detailsURL},
		"a relative path":                        {"GET a HTTP/1.1\r\n" + host + "\r\n", 400, detailsURL},
		"an asterisk with GET":                   {"GET * HTTP/1.1\r\n" + host + "\r\n", 400, detailsURL},
		"a strange scheme":                       {"GET ftp://a/b HTTP/1.1\r\n" + host + "\r\n", 400, "http1.invalid_scheme"},
		"an absolute target with user info":      {"GET http://me@a/ HTTP/1.1\r\n" + host + "\r\n", 400, detailsURL},
		"CONNECT without a port":                 {"CONNECT a HTTP/1.1\r\n" + host + "\r\n", 400, detailsURL},
		"CONNECT with a body":                    {"CONNECT a:1 HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc", 400, detailsLength},
		"another expectation":                    {"GET / HTTP/1.1\r\n" + host + "Expect: 200-ok\r\n\r\n", 417, detailsExpect},
		"HTTP/1.0":                               {"GET / HTTP/1.0\r\n" + host + "\r\n", 426, detailsLowVersion},
		"a long target":                          {"GET /" + long + " HTTP/1.1\r\n" + host + "\r\n", 414, detailsTooLarge},
		"a long field":                           {"GET / HTTP/1.1\r\n" + host + "X: " + long + "\r\n\r\n", 431, detailsTooLarge},
		"many fields":                            {"GET / HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", 20) + "\r\n", 431, detailsTooMany},
		"a head that does not end":               {"GET / HTTP/1.1\r\nHost", 408, "request_header_timeout"},
		"a head that does not end, byte by byte": {"G", 408, "request_header_timeout"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, refused := talk(t, ServerOptions{MaxHeaderBytes: 4096, MaxHeaders: 20, HeaderTimeout: 10 * time.Second}, tt.input)
			if want := []string{fmt.Sprintf("%d %s", tt.status, tt.details)}; !cmp.Equal(refused, want) {
				t.Errorf("refused %q, want %q", refused, want)
			}
			resp, err := nethttp.ReadResponse(bufio.NewReader(strings.NewReader(out)), nil)
			if err != nil || resp.StatusCode != tt.status || !resp.Close {
				t.Errorf("%q: %v", out, err)
			}
			if strings.Count(out, "HTTP/1.1 ") != 1 {
				t.Errorf("more than one answer: %q", out)
			}
		})
	}
}

func TestWhatIsServed(t *testing.T) {
	tests := map[string]struct {
		input, want string
		http10      bool
	}{
		"an absolute target wins over Host":      {input: "GET http://b:81/p?q HTTP/1.1\r\nHost: a\r\n\r\n", want: "x-method: GET\r\nx-path: /p?q\r\nx-authority: b:81\r\n"},
		"an absolute target without a path":      {input: "GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n", want: "x-path: /\r\nx-authority: b\r\n"},
		"OPTIONS with an asterisk":               {input: "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", want: "x-method: OPTIONS\r\nx-path: *\r\n"},
		"an absolute OPTIONS without a path":     {input: "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", want: "x-path: *\r\n"},
		"empty lines before a request":           {input: "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", want: "x-path: /\r\n"},
		"an empty Host":                          {input: "GET / HTTP/1.1\r\nHost:\r\n\r\n", want: "x-authority: \r\n"},
		"spaces and tabs around a value":         {input: "GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", want: "x-authority: a\r\n"},
		"HTTP/1.0 without Host, if allowed":      {input: "GET / HTTP/1.0\r\n\r\n", want: "connection: close\r\n", http10: true},
		"HTTP/1.0 that wants to stay":            {input: "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", want: "connection: keep-alive\r\n", http10: true},
		"a client that wants to go":              {input: "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", want: "connection: close\r\n"},
		"a request for h2c stays HTTP/1.1":       {input: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", want: "x-path: /\r\n"},
		"chunks with extensions and upper case":  {input: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\nA;a=b;c=\"d\"\r\n0123456789\r\n0;x\r\n\r\n", want: "\r\n\r\n0123456789"},
		"the last field of a head has no value":  {input: "GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n", want: "x-path: /\r\n"},
		"a chunked body sent as one with length": {input: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", want: "content-length: 7\r\n\r\nabcdefg"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, refused := talk(t, ServerOptions{AllowHTTP10: tt.http10, IdleTimeout: 10 * time.Second}, tt.input)
			if len(refused) > 0 || !strings.HasPrefix(out, "HTTP/1.1 200 OK\r\n") || !strings.Contains(out, tt.want) {
				t.Errorf("refused %q, answered %q", refused, out)
			}
		})
	}
}

func TestBadChunksEndTheConnection(t *testing.T) {
	for name, body := range map[string]string{
		"no size":                    "\r\nabc\r\n0\r\n\r\n",
		"a size that is no number":   "x\r\nabc\r\n0\r\n\r\n",
		"a signed size":              "+3\r\nabc\r\n0\r\n\r\n",
		"a prefixed size":            "0x3\r\nabc\r\n0\r\n\r\n",
		"a space before the size":    " 3\r\nabc\r\n0\r\n\r\n",
		"a space after the size":     "3 \r\nabc\r\n0\r\n\r\n",
		"a size that overflows":      "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
		"a size with many zeros":     "00000000000000003\r\nabc\r\n0\r\n\r\n",
		"LF after the size":          "3\nabc\r\n0\r\n\r\n",
		"LF after the data":          "3\r\nabc\n0\r\n\r\n",
		"more data than the size":    "3\r\nabcd\r\n0\r\n\r\n",
		"LF in an extension":         "3;a\nb\r\nabc\r\n0\r\n\r\n",
		"an endless extension":       "3;" + strings.Repeat("x", maxChunkExtra+1) + "\r\nabc\r\n0\r\n\r\n",
		"many extensions":            strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 20) + "0\r\n\r\n",
		"a folded trailer":           "0\r\nX: a\r\n b\r\n\r\n",
		"LF in the trailers":         "0\r\nX: a\n\r\n",
		"LF as the last line":        "0\r\n\n",
		"a trailer without a colon":  "0\r\nfoo\r\n\r\n",
		"trailers beyond the limits": "0\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			out, _ := talk(t, ServerOptions{MaxHeaderBytes: 4096}, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+body+"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
			if strings.Contains(out, "200 OK") {
				t.Errorf("answered %q", out)
			}
		})
	}
}

func TestHopByHopFieldsStayOnTheirHop(t *testing.T) {
	var got []string
	h := func(_ context.Context, s stream.Server) {
		for _, f := range s.Request().Fields.All() {
			got = append(got, string(f.Name))
		}
		if !s.Request().TETrailers {
			t.Error("te: trailers was not noticed")
		}
		resp := &stream.Response{Status: 200}
		for _, n := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Content-Length", "X-Kept"} {
			resp.Fields.Add(n, "7")
		}
		_ = s.WriteHead(resp, true)
	}
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(memnet.Link{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(t.Context(), netio.New(b), ServerOptions{}, h)
		}()
		_, _ = a.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret , content-length\r\nTE: trailers, deflate\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n" +
			"Proxy-Connection: x\r\nUpgrade: foo\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n"))
		out, _ := io.ReadAll(a)
		<-done
		if want := "HTTP/1.1 200 OK\r\nX-Kept: 7\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"; string(out) != want {
			t.Errorf("%q", out)
		}
	})
	if d := cmp.Diff([]string{"X-Kept", "Content-Length"}, got); d != "" {
		t.Error(d)
	}
}

func TestTimeouts(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\nx-method: GET\r\nx-path: /\r\nx-authority: a\r\ncontent-length: 0\r\n\r\n"
	get := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	o := ServerOptions{IdleTimeout: 10 * time.Second, HeaderTimeout: 3 * time.Second, RequestTimeout: 5 * time.Second}
	step := func(d time.Duration, s string) func(io.Writer) {
		return func(w io.Writer) { time.Sleep(d); _, _ = io.WriteString(w, s) }
	}
	for name, tt := range map[string]struct {
		steps []func(io.Writer)
		want  string
		after time.Duration
	}{
		"idle from the start":              {nil, "", 10 * time.Second},
		"idle is counted from the last":    {[]func(io.Writer){step(8*time.Second, get), step(9*time.Second, get)}, ok + ok, 27 * time.Second},
		"a head must come in time":         {[]func(io.Writer){step(time.Second, "GET /")}, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 5 * time.Second},
		"a slow head resets no clock":      {[]func(io.Writer){step(0, "GET /"), step(2*time.Second, "a"), step(900*time.Millisecond, "b")}, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 4 * time.Second},
		"a request must be whole in time":  {[]func(io.Writer){step(0, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"), step(4*time.Second, "c")}, "", 5 * time.Second},
		"the clock of a request ends well": {[]func(io.Writer){step(0, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na"), step(4*time.Second, "b"), step(7*time.Second, get)}, "HTTP/1.1 200 OK\r\nx-method: POST\r\nx-path: /\r\nx-authority: a\r\ncontent-length: 2\r\n\r\nab" + ok, 21 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memnet.Pipe(memnet.Link{})
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					_ = ServeConn(t.Context(), netio.New(b), o, echo)
				}()
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() {
					for _, f := range tt.steps {
						f(a)
					}
				})
				out, _ := io.ReadAll(a)
				<-done
				_ = a.Close()
				if string(out) != tt.want {
					t.Errorf("%q", out)
				}
				if d := time.Since(start); d != tt.after {
					t.Errorf("ended after %v, want %v", d, tt.after)
				}
			})
		})
	}
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drain := make(chan struct{})
		a, b := memnet.Pipe(memnet.Link{})
		done := make(chan error, 1)
		go func() {
			done <- ServeConn(t.Context(), netio.New(b), ServerOptions{Drain: drain, IdleTimeout: time.Hour}, echo)
		}()
		_, _ = a.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"))
		synctest.Wait()
		close(drain)
		synctest.Wait()
		_, _ = a.Write([]byte("c"))
		out, _ := io.ReadAll(a)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if strings.Count(string(out), "200 OK") != 2 || !strings.HasSuffix(string(out), "connection: close\r\n\r\nabc") {
			t.Errorf("%q", out)
		}
	})
	t.Run("an idle connection ends after a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			drain := make(chan struct{})
			a, b := memnet.Pipe(memnet.Link{})
			done := make(chan error, 1)
			go func() {
				done <- ServeConn(t.Context(), netio.New(b), ServerOptions{Drain: drain, IdleTimeout: time.Hour}, echo)
			}()
			synctest.Wait()
			start := time.Now()
			close(drain)
			if err := <-done; err != nil || time.Since(start) < DefaultDrainIdle || time.Since(start) > DefaultDrainIdle+10*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			_ = a.Close()
		})
	})
	replaced := func(t *testing.T, age time.Duration) (drain chan struct{}, a net.Conn, done chan error) {
		drain, done = make(chan struct{}), make(chan error, 1)
		a, b := memnet.Pipe(memnet.Link{})
		go func() {
			o := ServerOptions{Drain: drain, DrainIdle: func() time.Duration { return 0 }, IdleTimeout: time.Hour}
			done <- ServeConn(t.Context(), netio.New(b), o, echo)
		}()
		time.Sleep(age)
		synctest.Wait()
		return drain, a, done
	}
	for name, asked := range map[string]string{
		"an idle connection whose configuration was replaced ends at once": "",
		"and so does one that was used a moment ago":                       "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				age := FirstRequestGrace + time.Millisecond
				if asked != "" {
					age = 0
				}
				drain, a, done := replaced(t, age)
				if asked != "" {
					_, _ = a.Write([]byte(asked))
					if _, err := io.ReadAtLeast(a, make([]byte, 1000), 10); err != nil {
						t.Fatal(err)
					}
				}
				start := time.Now()
				close(drain)
				if err := <-done; err != nil || time.Since(start) > 10*time.Millisecond {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				_ = a.Close()
			})
		})
	}
	t.Run("a new connection whose configuration was replaced has a second for its first request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			drain, a, done := replaced(t, 0)
			close(drain)
			time.Sleep(FirstRequestGrace - time.Millisecond)
			_, _ = a.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"))
			out, _ := io.ReadAll(a)
			if err := <-done; err != nil || !strings.HasSuffix(string(out), "connection: close\r\n\r\nabc") {
				t.Errorf("%v, %q", err, out)
			}
		})
	})
	t.Run("and no more than that", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			drain, a, done := replaced(t, 10*time.Millisecond)
			start := time.Now()
			close(drain)
			if err := <-done; err != nil || time.Since(start) < FirstRequestGrace-10*time.Millisecond || time.Since(start) > FirstRequestGrace {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			_ = a.Close()
		})
	})
	for name, before := range map[string]string{
		"the first request of a connection that drains is served": "",
		"a request that was on its way when the drain began":      "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				drain := make(chan struct{})
				a, b := memnet.Pipe(memnet.Link{})
				done := make(chan error, 1)
				go func() {
					done <- ServeConn(t.Context(), netio.New(b), ServerOptions{Drain: drain, IdleTimeout: time.Hour}, echo)
				}()
				_, _ = a.Write([]byte(before))
				synctest.Wait()
				close(drain)
				time.Sleep(DefaultDrainIdle - time.Millisecond)
				_, _ = a.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"))
				start := time.Now()
				out, _ := io.ReadAll(a)
				if err := <-done; err != nil || time.Since(start) != 0 {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				if !strings.HasSuffix(string(out), "connection: close\r\n\r\nabc") {
					t.Errorf("%q", out)
				}
			})
		})
	}
}

func TestAnUpstreamThatMisbehaves(t *testing.T) {
	for name, tt := range map[string]struct {
		response string
		flag     stream.Flags
		details  string
		inBody   bool
	}{
		"closes at once":                  {"", stream.FlagUpstreamTermination, "upstream_reset_before_response_started{connection_termination}", false},
		"closes in the head":              {"HTTP/1.1 200 OK\r\nX:", stream.FlagUpstreamTermination, "upstream_reset_before_response_started{connection_termination}", false},
		"closes in the body":              {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", stream.FlagUpstreamTermination, "upstream_reset_after_response_started{connection_termination}", true},
		"closes in a chunk":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", stream.FlagUpstreamTermination, "upstream_reset_after_response_started{connection_termination}", true},
		"speaks something else":           {"220 smtp.example ESMTP\r\n\r\n", stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
		"sends two lengths":               {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
		"sends a length and chunks":       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
		"sends a bad chunk":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", stream.FlagUpstreamProtocolErr, "upstream_reset_after_response_started{protocol_error}", true},
		"sends a huge head":               {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
		"switches without being asked":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
		"sends informational for ever":    {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
		"status below 100":                {"HTTP/1.1 099 X\r\n\r\n", stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
		"a control character in a reason": {"HTTP/1.1 200 O\x01K\r\n\r\n", stream.FlagUpstreamProtocolErr, "upstream_reset_before_response_started{protocol_error}", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memnet.Pipe(memnet.Link{})
				go func() {
					_, _ = b.Read(make([]byte, 1000))
					_, _ = b.Write([]byte(tt.response))
					_ = b.Close()
				}()
				reusable := true
				cc := NewClientConn(netio.New(a), &stream.ConnInfo{}, ClientOptions{OnRelease: func(_ *ClientConn, ok bool) { reusable = ok }})
				x, err := cc.Start()
				if err != nil {
					t.Fatal(err)
				}
				if err := x.WriteHead(&stream.Request{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/")}, true); err != nil {
					t.Fatal(err)
				}
				_, err = x.ReadHead()
				if (err == nil) != tt.inBody {
					t.Fatalf("head: %v", err)
				}
				for err == nil {
					_, err = x.ReadBody()
				}
				e, ok := stream.AsError(err)
				if !ok || e.Side != stream.Upstream || e.Flag != tt.flag || e.Details != tt.details || e.Unsent {
					t.Errorf("%+v", err)
				}
				x.Close()
				if reusable || cc.Idle() {
					t.Errorf("the connection was given back: %v, %v", reusable, cc.Idle())
				}
				if _, err := cc.Start(); err == nil {
					t.Error("a dead connection takes an exchange")
				}
			})
		})
	}
}

func TestWhenAConnectionMayBeUsedAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		response string
		reusable bool
		body     string
	}{
		"with a length":                {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", true, "ab"},
		"chunked":                      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", true, "ab"},
		"204 in spite of a length":     {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", true, ""},
		"close":                        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab", false, "ab"},
		"HTTP/1.0":                     {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", false, "ab"},
		"HTTP/1.0 that stays":          {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab", true, "ab"},
		"more than one response":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n", false, "ab"},
		"a reason that is left out":    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", true, ""},
		"informational heads go first": {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", true, "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memnet.Pipe(memnet.Link{})
				defer b.Close()
				go func() {
					_, _ = b.Read(make([]byte, 1000))
					_, _ = b.Write([]byte(tt.response))
				}()
				var reusable bool
				cc := NewClientConn(netio.New(a), &stream.ConnInfo{}, ClientOptions{OnRelease: func(_ *ClientConn, ok bool) { reusable = ok }})
				defer cc.Close()
				x, err := cc.Start()
				if err != nil {
					t.Fatal(err)
				}
				_ = x.WriteHead(&stream.Request{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/")}, true)
				if _, err := x.ReadHead(); err != nil {
					t.Fatal(err)
				}
				var body []byte
				for {
					p, err := x.ReadBody()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					body = append(body, p...)
				}
				if string(body) != tt.body {
					t.Errorf("body %q", body)
				}
				x.Close()
				if reusable != tt.reusable || reusable != cc.Usable() || reusable != cc.Idle() {
					t.Errorf("reusable %v, usable %v, idle %v", reusable, cc.Usable(), cc.Idle())
				}
			})
		})
	}
}

func TestAStaleConnectionIsNoticed(t *testing.T) {
	a, b := memnet.Pipe(memnet.Link{})
	cc := NewClientConn(netio.New(a), &stream.ConnInfo{}, ClientOptions{})
	if !cc.Usable() {
		t.Error("a fresh connection is not usable")
	}
	_ = b.Close()
	if cc.Usable() {
		t.Error("a closed connection is usable")
	}
	x, err := cc.Start()
	if err != nil {
		t.Fatal(err)
	}
	_ = x.WriteHead(&stream.Request{Method: []byte("POST"), Authority: []byte("a"), Path: []byte("/"), ContentLength: 1}, false)
	_ = x.WriteBody([]byte("x"), true)
	_, err = x.ReadHead()
	if e, ok := stream.AsError(err); !ok || !e.Unsent || !e.Reset {
		t.Errorf("nothing was taken by the peer, but: %+v", err)
	}
	x.Close()
}

func TestHeadAndBodyLeaveInOneWrite(t *testing.T) {
	rec := &recorder{}
	body := bytes.Repeat([]byte("x"), 10_000)
	a, b := memnet.Pipe(memnet.Link{})
	rec.Conn = b
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = ServeConn(t.Context(), netio.New(rec), ServerOptions{}, func(_ context.Context, s stream.Server) {
			_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: int64(len(body))}, false)
			_ = s.WriteBody(body, true)
		})
	}()
	_, _ = a.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
	_, _ = io.ReadAll(a)
	<-done
	if rec.writes != 1 {
		t.Errorf("%d writes", rec.writes)
	}
}

type recorder struct {
	*memnet.Conn
	writes int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes++
	return r.Conn.Write(p)
}

func TestEmptyLinesBetweenPipelinedRequestsAreIgnored(t *testing.T) {
	get := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	out, refused := talk(t, ServerOptions{IdleTimeout: 10 * time.Second}, get+"\r\n\r\n"+get)
	if len(refused) > 0 || strings.Count(out, "HTTP/1.1 200 OK\r\n") != 2 {
		t.Errorf("refused %q, answered %q", refused, out)
	}
}

func TestHTTP2SettingsStaysOnItsHop(t *testing.T) {
	if lookup([]byte("HTTP2-Settings")) == other || lookup([]byte("content-length")) != fieldContentLength {
		t.Error("http2-settings would be passed on")
	}
}
