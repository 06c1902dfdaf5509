package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// mustAdd are fields that every proxy has to add, so that all do the same work.
var (
	mustAdd = []string{"x-request-id", "x-forwarded-proto", "traceparent", "x-envoy-attempt-count"}
	// certField is what the server's end of a pair adds.
	certField = "x-forwarded-client-cert"
	// h2HeadPath makes the backend answer a call with the request head that it got.
	h2HeadPath = "/bench.Echo/Head"
)

// verify sends requests through a proxy and checks what arrives and what comes back.
func verify(kind string, at target) error {
	if kind == kindTCP {
		return verifyTCP(at)
	}
	var head []byte
	var err error
	if downH2(kind) {
		head, err = headH2(at)
	} else {
		head, err = headH1(at)
	}
	if err != nil {
		return err
	}
	if err := checkHead(kind, head); err != nil {
		return err
	}
	return ask(kind, at)
}

// checkHead looks for what the proxies have to add to a request.
func checkHead(kind string, head []byte) error {
	have := map[string]string{}
	for line := range bytes.Lines(head) {
		name, value, _ := strings.Cut(strings.TrimPrefix(string(line), ":"), ":")
		have[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	want := mustAdd
	switch {
	case paired(kind):
		want = append(want[:len(want):len(want)], certField)
	case kind == kindTLS:
		want = []string{certField} // the client is no sidecar
	}
	for _, f := range want {
		if have[f] == "" {
			return fmt.Errorf("the proxy did not add %s to the request:\n%s", f, head)
		}
	}
	if v := have[certField]; hasServerEnd(kind) && !strings.Contains(v, clientAccount) {
		return fmt.Errorf("%s is %q, which does not name %s", certField, v, clientAccount)
	}
	return nil
}

func headH1(at target) ([]byte, error) {
	c, err := dialH1(at)
	if err != nil {
		return nil, err
	}
	defer c.c.Close()
	c.c.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.c.Write(h1Get(headPath)); err != nil {
		return nil, err
	}
	return c.read()
}

// headH2 makes a call with Go's own client, which checks the framing too.
func headH2(at target) ([]byte, error) {
	t := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) { return at.dial() }}
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+benchHost+h2HeadPath, bytes.NewReader(h2RequestBody))
	if err != nil {
		return nil, err
	}
	for _, f := range h2RequestFields[4:] {
		req.Header.Set(f.Name, f.Value)
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	head, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != 200 || resp.Trailer.Get("grpc-status") != "0" {
		return nil, fmt.Errorf("wrong response: %s, trailers %v: %.300q", resp.Status, resp.Trailer, head)
	}
	return head, nil
}

// askH2 makes one call with the load's own client.
func askH2(at target) error {
	l, err := openH2(1, 1, 0)(at)
	if err != nil {
		return err
	}
	h := l.(*h2Load)
	defer h.close()
	h.conns[0].c.SetDeadline(time.Now().Add(answerTimeout))
	h.mu.Lock()
	h.end, h.left, h.idle = time.Now(), 1, make(chan struct{})
	h.mu.Unlock()
	if err := h.conns[0].send(time.Now()); err != nil {
		return err
	}
	select {
	case <-h.idle:
		return nil
	case err := <-h.fail:
		return err
	}
}

func verifyTCP(at target) error {
	c, err := at.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.Write([]byte{tcpEcho}); err != nil {
		return err
	}
	buf := bytes.Clone(fill(208))
	if _, err := ping(c, buf); err != nil {
		return err
	}
	if !bytes.Equal(buf, fill(208)) {
		return errors.New("the echo differs")
	}
	return nil
}
