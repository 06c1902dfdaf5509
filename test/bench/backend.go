package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// Paths that the backend answers in another way than with h1Response.
const (
	headPath = "/head" // the request head that it got
	bigPath  = "/big"  // bigBody
	holdPath = "/hold" // after holdTime
	holdTime = time.Second
	bigSize  = 1 << 20
)

var (
	h1Body        = fill(bodySize)
	h1Response    = h1OK(h1Body)
	h2RequestBody = fill(h2RequestSize)
	h2Body        = fill(h2ResponseSize)
	bigBody       = fill(bigSize)
	bigResponse   = h1OK(bigBody)
)

// fill makes n bytes that look like text.
func fill(n int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), n/16)
}

func h1OK(body []byte) []byte {
	return append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nX-Backend: bench\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
}

// backend answers what the proxies forward. It writes constants: its time is
// not measured, but it takes processor time away from who is measured.
type backend struct {
	listeners   []net.Listener
	h1, h2, tcp int        // ports
	mu          sync.Mutex // protects the following
	conns       map[net.Conn]bool
	closed      bool
	wg          sync.WaitGroup
}

func startBackend() (*backend, error) {
	b := &backend{conns: map[net.Conn]bool{}}
	for _, s := range []struct {
		port  *int
		serve func(net.Conn) error
	}{{&b.h1, serveH1}, {&b.h2, serveH2}, {&b.tcp, serveTCP}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.close()
			return nil, err
		}
		*s.port = l.Addr().(*net.TCPAddr).Port
		b.listeners = append(b.listeners, l)
		b.wg.Go(func() { b.accept(l, s.serve) })
	}
	return b, nil
}

func (b *backend) accept(l net.Listener, serve func(net.Conn) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !b.add(c) {
			c.Close()
			return
		}
		b.wg.Go(func() {
			defer b.remove(c)
			serve(c) // an error means that the proxy closed, which the load notices
		})
	}
}

func (b *backend) add(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.conns[c] = true
	}
	return !b.closed
}

func (b *backend) remove(c net.Conn) {
	c.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
}

func (b *backend) close() {
	for _, l := range b.listeners {
		l.Close()
	}
	b.mu.Lock()
	b.closed = true
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// serveH1 answers GETs, and POSTs of the large body.
func serveH1(c net.Conn) error {
	buf := make([]byte, 16<<10)
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		for {
			i := bytes.Index(buf[:n], []byte("\r\n\r\n"))
			if i < 0 {
				break
			}
			out, used := h1Answer(buf[:i+4]), i+4
			if bytes.HasPrefix(buf, []byte("POST ")) {
				rest, err := takeBody(c, buf[:i+4], buf[i+4:n])
				if err != nil {
					out = h1Refusal(err)
				}
				used += rest
			}
			if _, err := c.Write(out); err != nil {
				return err
			}
			n = copy(buf, buf[used:n])
		}
		if n == len(buf) {
			return fmt.Errorf("request head above %d bytes", n)
		}
	}
}

// h1Answer chooses the response by the path.
func h1Answer(head []byte) []byte {
	switch {
	case bytes.HasPrefix(head, []byte("GET "+headPath+" ")):
		return h1OK(head)
	case bytes.HasPrefix(head, []byte("GET "+bigPath+" ")):
		return bigResponse
	case bytes.HasPrefix(head, []byte("GET "+holdPath+" ")):
		time.Sleep(holdTime)
	}
	return h1Response
}

// takeBody reads a request's body, which must be the large one, and returns how much of it was in the buffer already.
func takeBody(c net.Conn, head, have []byte) (int, error) {
	size, err := strconv.Atoi(string(fieldValue(head, "content-length")))
	if err != nil || size != len(bigBody) {
		return 0, fmt.Errorf("request body of %d bytes (%v), want %d:\n%s", size, err, len(bigBody), head)
	}
	used := min(len(have), size)
	if !bytes.Equal(have[:used], bigBody[:used]) {
		return used, errors.New("request body differs")
	}
	buf := make([]byte, 64<<10)
	for at := used; at < size; {
		n, err := c.Read(buf[:min(len(buf), size-at)])
		if err != nil {
			return used, err
		}
		if !bytes.Equal(buf[:n], bigBody[at:at+n]) {
			return used, errors.New("request body differs")
		}
		at += n
	}
	return used, nil
}

func h1Refusal(why error) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(why.Error()), why)
}

// serveTCP echoes or sends without end, as the first byte says.
func serveTCP(c net.Conn) error {
	buf := make([]byte, 256<<10)
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return err
	}
	for send := buf[0] == tcpSend; ; {
		n := len(buf)
		if !send {
			var err error
			if n, err = c.Read(buf); err != nil {
				return err
			}
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}
