package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
)

// server starts one on free ports and returns where it is.
func server(t *testing.T) (plain, secure, rpc string) {
	t.Helper()
	var p []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p = append(p, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		l.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- runServer(ctx, []string{"--port=" + p[0], "--grpc=" + p[2], "--port=" + p[1], "--tls=" + p[1], "--crt=/cert.crt", "--key=/cert.key"})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, port := range p {
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err == nil {
				c.Close()
				break
			}
			if time.Since(start) > 20*time.Second {
				t.Fatal(err)
			}
		}
	}
	return "127.0.0.1:" + p[0], "127.0.0.1:" + p[1], "127.0.0.1:" + p[2]
}

func ask(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := runClient(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The suite's own parser reads what the client prints.
func TestTheSuiteUnderstandsTheAnswers(t *testing.T) {
	plain, secure, rpc := server(t)
	for _, url := range []string{"http://" + plain + "/a/path?q=1", "https://" + secure + "/a/path?q=1", "grpc://" + rpc} {
		r := echo.ParseResponse(ask(t, url, "-H", "X-Test:some:value", "-H", "Host:a.example"))
		if r.Code != "200" || r.Hostname == "" {
			t.Errorf("%s: code %q, hostname %q", url, r.Code, r.Hostname)
		}
		if got := r.RequestHeaders.Get("X-Test"); got != "some:value" {
			t.Errorf("%s: header %q", url, got)
		}
		if strings.HasPrefix(url, "http") && (r.Host != "a.example" || r.ResponseHeaders.Get("Content-Type") != "text/plain") {
			t.Errorf("%s: host %q, response headers %v", url, r.Host, r.ResponseHeaders)
		}
	}
}

func TestEachOfManyAnswersIsASection(t *testing.T) {
	plain, _, rpc := server(t)
	for _, url := range []string{"http://" + plain + "/", "grpc://" + rpc} {
		sections := strings.Split(strings.TrimSpace(ask(t, url, "--count=7")), "\n\n")
		if len(sections) != 7 {
			t.Fatalf("%s: %d sections", url, len(sections))
		}
		for i, s := range sections {
			if r := echo.ParseResponse(s); r.Code != "200" || !strings.HasPrefix(s, fmt.Sprintf("[%d] Url=", i)) {
				t.Errorf("%s: section %d: %q", url, i, s)
			}
		}
	}
}

func TestWhatIsAskedWrongIsRefused(t *testing.T) {
	for _, args := range [][]string{{}, {"ftp://a/"}, {"http:///path"}, {"http://a/", "-H", "nocolon"}, {"http://a/", "--count=0"}} {
		if err := runClient(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	if err := runServer(t.Context(), []string{"--port=70000"}); err == nil {
		t.Error("port 70000: no error")
	}
}
