package corpus

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// backend is an upstream that keeps the exact bytes of each connection.
type backend struct {
	l  net.Listener
	wg sync.WaitGroup

	mu sync.Mutex
	// mu protects the following.
	conns  []*record
	script testCase // response, answer and then
	served int      // responses so far
	// slower is what waits are multiplied by, for a machine that is busy with something else; 0 is 1.
	slower time.Duration
}

// record is what one connection brought.
type record struct {
	c    net.Conn
	data []byte // backend.mu protects it
	done chan struct{}
}

func startBackend(t *testing.T) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{l: l}
	b.wg.Go(b.accept)
	t.Cleanup(func() {
		l.Close()
		b.end()
		b.wg.Wait()
	})
	return b
}

func (b *backend) port() int { return b.l.Addr().(*net.TCPAddr).Port }

func (b *backend) accept() {
	for {
		c, err := b.l.Accept()
		if err != nil {
			return
		}
		r := &record{c: c, done: make(chan struct{})}
		b.mu.Lock()
		b.conns = append(b.conns, r)
		b.mu.Unlock()
		b.wg.Go(func() {
			defer close(r.done)
			b.serve(r)
		})
	}
}

// serve records, and answers each request once it is there.
func (b *backend) serve(r *record) {
	buf := make([]byte, 64<<10)
	answered, broken := 0, false
	for {
		n, err := r.c.Read(buf)
		if answered == 0 && len(r.data) == 0 && bytes.HasPrefix(buf[:n], []byte(http2.ClientPreface)) {
			b.serve2(r, bytes.Clone(buf[:n]))
			return
		}
		b.mu.Lock()
		r.data = append(r.data, buf[:n]...)
		whole, part, perr := cutAll(r.data)
		early := b.script.then == "early" && part && len(whole) == answered && headWhole(r.data, whole)
		b.mu.Unlock()
		if early {
			whole = append(whole, request{method: "POST"})
		}
		for ; answered < len(whole); answered++ {
			resp, last := b.next(whole[answered].method)
			_, _ = r.c.Write(resp)
			if last {
				r.c.(*net.TCPConn).CloseWrite()
				broken = true
			}
		}
		if perr != nil && !broken { // do not leave a lax proxy waiting
			broken = true
			_, _ = r.c.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
			r.c.(*net.TCPConn).CloseWrite()
		}
		if err != nil {
			return
		}
	}
}

// headWhole tells whether what follows the whole requests has a complete head.
func headWhole(b []byte, whole []request) bool {
	for range whole {
		_, b, _ = cutRequest(b)
	}
	_, _, _, err := cutHead(b)
	return err == nil
}

// next is the response to the next request, and whether it is the connection's last.
func (b *backend) next(method string) (resp []byte, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.served++
	if b.served == 1 && b.script.response != nil {
		return b.script.response, b.script.then == "close"
	}
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
	if method != "HEAD" {
		ok += "ok"
	}
	return []byte(ok), false
}

// begin prepares for a case.
func (b *backend) begin(c *testCase) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.script, b.served = testCase{response: c.response, answer: c.answer, then: c.then}, 0
}

// patient says how much time the attempts from now on have.
func (b *backend) patient(slower time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slower = slower
}

// wait is how long to wait in this attempt.
func (b *backend) wait(d time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return d * max(b.slower, 1)
}

// settled is how long nothing must arrive for a connection to count as read.
const settled = 15 * time.Millisecond

// end resets all connections, so that the proxy cannot use them for the next case, once
// nothing more arrives on them, and returns what each brought.
func (b *backend) end() [][]byte {
	b.mu.Lock()
	conns := b.conns
	b.conns = nil
	b.mu.Unlock()
	var all [][]byte
	for _, r := range conns {
		b.settle(r)
		_ = r.c.(*net.TCPConn).SetLinger(0)
		_ = r.c.Close()
		<-r.done
		all = append(all, r.data)
	}
	return all
}

func (b *backend) settle(r *record) {
	for before := -1; ; {
		b.mu.Lock()
		now := len(r.data)
		b.mu.Unlock()
		if now == before {
			return
		}
		before = now
		select {
		case <-r.done:
			return
		case <-time.After(b.wait(settled)):
		}
	}
}

// so is what has arrived so far.
func (b *backend) so() [][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all [][]byte
	for _, r := range b.conns {
		all = append(all, append([]byte(nil), r.data...))
	}
	return all
}

// arrived words what reached the upstream: whole requests, and whether there was more.
func arrived(all [][]byte) (whole []string, rest string) {
	for _, b := range all {
		rs, part, err := cutAll(b)
		for _, r := range rs {
			whole = append(whole, r.String())
		}
		if err == nil {
			err = agrees(b, rs)
		}
		switch {
		case err != nil:
			rest = "unclear: " + err.Error()
		case part && rest == "":
			rest = "incomplete"
		}
	}
	return whole, strings.ToValidUTF8(rest, "?")
}
