package soak

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const opTimeout = 30 * time.Second

// h1Client is one client's connections over HTTP/1.1, one to each address, kept while they can be.
type h1Client struct {
	y     *tally
	r     *rand.Rand
	conns map[string]*h1Conn
}

type h1Conn struct {
	net.Conn
	br   *bufio.Reader
	used bool // a response came over it
	last time.Time
}

// errStale: a kept connection was closed before a byte of the response came.
var errStale = errors.New("stale connection")

// dialTo connects, with TLS and ALPN if the address begins with "tls:".
func dialTo(addr, alpn string) (net.Conn, error) {
	rest, secure := strings.CutPrefix(addr, "tls:")
	c, err := net.DialTimeout("tcp", rest, opTimeout)
	if err != nil || !secure {
		return c, err
	}
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
	_ = tc.SetDeadline(time.Now().Add(opTimeout))
	if err := tc.Handshake(); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return tc, nil
}

func (c *h1Client) conn(addr string) (*h1Conn, error) {
	if k := c.conns[addr]; k != nil {
		if time.Since(k.last) < 4*time.Second { // the listeners' idle_timeout is 10 s
			return k, nil
		}
		c.drop(addr)
	}
	n, err := dialTo(addr, "http/1.1")
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	k := &h1Conn{Conn: n, br: bufio.NewReader(n)}
	c.conns[addr] = k
	return k, nil
}

func (c *h1Client) drop(addr string) {
	if k := c.conns[addr]; k != nil {
		_ = k.Close()
		delete(c.conns, addr)
	}
}

func (c *h1Client) close() {
	for a := range c.conns {
		c.drop(a)
	}
}

// run does one operation. A kept connection that turns out to be closed is replaced once, as every client does.
func (c *h1Client) run(addr string, o op) error {
	for {
		k, err := c.conn(addr)
		if err != nil {
			return err
		}
		_ = k.SetDeadline(time.Now().Add(opTimeout))
		kept := k.used
		again, err := c.exchange(k, o)
		k.last = time.Now()
		if err != nil || !again {
			c.drop(addr)
		}
		if kept && errors.Is(err, errStale) {
			c.y.note("kept connections found closed", 1)
			continue
		}
		return err
	}
}

func (c *h1Client) exchange(k *h1Conn, o op) (again bool, err error) {
	count := max(o.pipeline, 1)
	ops := make([]op, count)
	for i := range ops {
		if ops[i] = o; count > 1 {
			ops[i].id = fmt.Sprintf("%s.%d", o.id, i)
		}
	}
	if o.fault == abort && o.send >= 0 { // leaves in the middle of its body
		_, _ = k.Write(append(c.head(o), o.sent()[:o.send/2]...))
		resetConn(k.Conn)
		return false, nil
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	goOn := make(chan bool, 1)
	sending.Go(func() {
		var head []byte
		for _, o := range ops {
			head = append(head, c.head(o)...)
		}
		if _, err := k.Write(head); err != nil || o.send < 0 {
			return
		}
		if o.expect && !<-goOn {
			return
		}
		c.sendBody(k, o)
	})
	defer close(goOn)
	for i, o := range ops {
		if again, err = c.receive(k, o, i == 0, goOn); err != nil {
			_ = k.Close() // ends the sender
			return false, err
		}
		if !again && i < count-1 { // it has said that it closes, so the others were not taken (RFC 9112 section 9.6)
			c.y.note("pipelined requests not taken", count-1-i)
			return false, nil
		}
	}
	return again, nil
}

func (c *h1Client) head(o op) []byte {
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: app\r\nX-Id: %s\r\n", o.method, o.path(), o.id)
	if o.send >= 0 {
		b = fmt.Appendf(b, "X-Sum: %s\r\n", sumOf(o.sent()))
	} else {
		b = fmt.Appendf(b, "X-Sum: %s\r\n", sumOf(nil))
	}
	switch {
	case o.send >= 0 && o.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case o.send >= 0:
		b = fmt.Appendf(b, "Content-Length: %d\r\n", o.send)
	}
	if o.expect {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	return append(b, "\r\n"...)
}

func (c *h1Client) sendBody(k *h1Conn, o op) {
	body := o.sent()
	if !o.chunked {
		_, _ = k.Write(body)
		return
	}
	r := rand.New(rand.NewPCG(uint64(o.send), 1))
	for len(body) > 0 {
		n := min(len(body), 1+r.IntN(40000))
		piece := fmt.Appendf(nil, "%x\r\n", n)
		piece = append(append(piece, body[:n]...), "\r\n"...)
		if _, err := k.Write(piece); err != nil {
			return
		}
		body = body[n:]
	}
	_, _ = k.Write([]byte("0\r\n\r\n"))
}

// receive reads one response and checks it.
func (c *h1Client) receive(k *h1Conn, o op, first bool, goOn chan<- bool) (again bool, err error) {
	if _, err := k.br.Peek(1); err != nil {
		if first && k.used {
			return false, errStale
		}
		return false, fmt.Errorf("no response: %w", err)
	}
	var resp *http.Response
	asked := false
	for {
		resp, err = http.ReadResponse(k.br, &http.Request{Method: o.method})
		if err != nil {
			return false, fmt.Errorf("response: %w", err)
		}
		if resp.StatusCode != 100 {
			break
		}
		if !o.expect {
			return false, wrongf("100 Continue was not asked for")
		}
		if !asked {
			asked = true
			goOn <- true
		}
	}
	k.used = true
	if o.fault == abort && resp.Header.Get("x-soak") != "" {
		_, err := compare(io.LimitReader(resp.Body, int64(o.size/2)), io.LimitReader(o.want().body(), int64(o.size/2)))
		resetConn(k.Conn)
		return false, errIfWrong(err)
	}
	if err := checkResponse(resp, o); err != nil {
		return false, err
	}
	return !resp.Close && asked == o.expect, nil
}

// errIfWrong keeps only what no abort explains.
func errIfWrong(err error) error {
	if isWrong(err) {
		return err
	}
	return nil
}

// errStatus is an answer that the proxy gave by itself.
type errStatus struct {
	code int
	text string
}

func (e *errStatus) Error() string { return fmt.Sprintf("status %d %.100q", e.code, e.text) }

// checkResponse compares a whole response with what belongs to its request.
func checkResponse(resp *http.Response, o op) error {
	w := o.want()
	if resp.Header.Get("x-soak") == "" {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if resp.StatusCode < 400 {
			return wrongf("status %d without a mark", resp.StatusCode)
		}
		if err != nil {
			return err
		}
		return &errStatus{resp.StatusCode, string(text)}
	}
	if resp.StatusCode != 200 || resp.Header.Get("x-id") != o.id || resp.Header.Get("x-soak") != w.mark() {
		return wrongf("%s %s got the response of %q: status %d, mark %s, want %s", o.id, o.path(), resp.Header.Get("x-id"), resp.StatusCode, resp.Header.Get("x-soak"), w.mark())
	}
	if resp.ContentLength >= 0 && resp.ContentLength != int64(w.size) && (o.method != "HEAD" || resp.ContentLength > 0) {
		return wrongf("content-length %d, want %d", resp.ContentLength, w.size)
	}
	ref := w.body()
	if o.method == "HEAD" {
		ref = bytes.NewReader(nil)
	}
	if err := whole(compare(resp.Body, ref)); err != nil {
		return err
	}
	if end := resp.Trailer.Get("x-end"); end != "" && end != w.mark() {
		return wrongf("trailer %q, want %s", end, w.mark())
	}
	return nil
}
