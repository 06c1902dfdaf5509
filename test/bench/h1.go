package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	benchHost = "bench.default.svc.cluster.local"
	bodySize  = 1024
	// connections of the HTTP/1.1 loads.
	h1Conns = 32
)

// h1Request is what an ordinary client sends: about 560 bytes, 9 fields.
var h1Request = h1Get("/api/v1/products/42?page=2&sort=price")

func h1Get(path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\n" +
		"Host: " + benchHost + "\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
		"Accept: application/json, text/plain, */*\r\n" +
		"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Authorization: Bearer 6f1c3e0a9b7d4c52a8e1f0b3d6c9a2e5f8b1d4c7\r\n" +
		"Cookie: session=4f9d2c7b1a8e6035; theme=dark; consent=essential\r\n" +
		"Referer: http://" + benchHost + "/api/v1/products\r\n" +
		"X-Client-Version: 4.12.0\r\n\r\n")
}

// h1Conn is one keep-alive connection. It has one request on the way at a time.
type h1Conn struct {
	c    net.Conn
	buf  []byte
	due  chan time.Time // open loop: of the request on the way
	want []byte         // body that every response must have
}

func dialH1(at target) (*h1Conn, error) {
	c, err := at.dial()
	if err != nil {
		return nil, err
	}
	return &h1Conn{c: c, buf: make([]byte, 8<<10), due: make(chan time.Time, 1), want: h1Body}, nil
}

func (c *h1Conn) roundTrip(req []byte) error {
	if _, err := c.c.Write(req); err != nil {
		return err
	}
	body, err := c.read()
	if err != nil {
		return err
	}
	return c.check(body)
}

func (c *h1Conn) check(body []byte) error {
	if !bytes.Equal(body, c.want) {
		return fmt.Errorf("wrong response: %d bytes of body, want the backend's %d: %.200q", len(body), len(c.want), body)
	}
	return nil
}

// read returns the body of the next response, which must be 200 with a Content-Length.
func (c *h1Conn) read() ([]byte, error) {
	n, head, total := 0, 0, -1
	for n != total {
		m, err := c.c.Read(c.buf[n:])
		if n += m; err != nil && n != total {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("connection closed after %d bytes of a response", n)
			}
			return nil, err
		}
		if total >= 0 {
			continue
		}
		if i := bytes.Index(c.buf[:n], []byte("\r\n\r\n")); i >= 0 {
			head = i + 4
			size, err := contentLength(c.buf[:head])
			if err != nil {
				return nil, err
			}
			total = head + size
		}
		if total > len(c.buf) || total < 0 && n == len(c.buf) || total >= 0 && n > total {
			return nil, fmt.Errorf("response of %d bytes where %d were expected: %.200q", n, total, c.buf[:n])
		}
	}
	return c.buf[head:total], nil
}

// contentLength reads a response head.
func contentLength(head []byte) (int, error) {
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("response is not 200: %.200q", head)
	}
	v := fieldValue(head, "content-length")
	if v == nil {
		return 0, fmt.Errorf("response has no content-length: %.300q", head)
	}
	return strconv.Atoi(string(v))
}

// fieldValue is the first value of a field in a head; nil if there is none.
func fieldValue(head []byte, field string) []byte {
	for line := range bytes.Lines(head) {
		name, value, ok := bytes.Cut(line, []byte{':'})
		if ok && bytes.EqualFold(name, []byte(field)) {
			return bytes.TrimSpace(value)
		}
	}
	return nil
}

// h1Closed sends the next request on each connection when the answer is there.
type h1Closed struct {
	conns []*h1Conn
	req   []byte
}

func openH1Closed(n int) opener { return openH1Request(n, h1Request, h1Body) }

// openH1Request sends one request on n connections; each answer must have the body want.
func openH1Request(n int, req, want []byte) opener {
	return func(at target) (load, error) {
		conns, err := dialMany(at, n)
		for _, c := range conns {
			c.want, c.buf = want, make([]byte, len(want)+4<<10)
		}
		return &h1Closed{conns, req}, err
	}
}

// h1Post sends the large body.
func h1Post() []byte {
	head := bytes.Replace(h1Request, []byte("GET "), []byte("POST "), 1)
	return append(fmt.Appendf(head[:len(head)-2], "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", len(bigBody)), bigBody...)
}

func dialMany(at target, n int) ([]*h1Conn, error) {
	var conns []*h1Conn
	for range n {
		c, err := dialH1(at)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []*h1Conn) {
	for _, c := range conns {
		c.c.Close()
	}
}

func (l *h1Closed) close() { closeAll(l.conns) }

func (l *h1Closed) run(ctx context.Context, d time.Duration) (sample, error) {
	start := time.Now()
	end := start.Add(d)
	lat := make([][]int64, len(l.conns))
	errs := make([]error, len(l.conns))
	var wg sync.WaitGroup
	for i, c := range l.conns {
		c.c.SetDeadline(end.Add(answerTimeout))
		wg.Go(func() {
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
				if errs[i] = c.roundTrip(l.req); errs[i] != nil {
					return
				}
				then := time.Now()
				lat[i] = append(lat[i], int64(then.Sub(now)))
				now = then
			}
		})
	}
	wg.Wait()
	var all []int64
	for _, l := range lat {
		all = append(all, l...)
	}
	return summary(all, time.Since(start)), errors.Join(append(errs, ctx.Err())...)
}

// h1Open sends at a fixed rate.
type h1Open struct {
	*pacer[*h1Conn]
	conns []*h1Conn
	wg    sync.WaitGroup
}

func openH1Rate(n, rate int) opener {
	return func(at target) (load, error) {
		conns, err := dialMany(at, n)
		if err != nil {
			return nil, err
		}
		l := &h1Open{pacer: newPacer[*h1Conn](rate, n), conns: conns}
		for _, c := range conns {
			l.free <- c
			l.wg.Go(func() { l.receive(c) })
		}
		return l, nil
	}
}

func (c *h1Conn) send(due time.Time) error {
	c.due <- due
	_, err := c.c.Write(h1Request)
	return err
}

func (l *h1Open) receive(c *h1Conn) {
	for {
		body, err := c.read()
		if err == nil {
			err = c.check(body)
		}
		if err != nil {
			report(l.fail, err)
			return
		}
		l.answered(c, <-c.due)
	}
}

func (l *h1Open) close() {
	closeAll(l.conns)
	l.wg.Wait()
}
