package conformance

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// backends are the upstreams of the differential tests: raw HTTP/1.1 servers,
// so that what arrives can be compared byte by byte. What they answer is said
// by the request's x-do header: words of
//
//	status=N         default 200
//	h=name:value     a response header
//	body=text        default "ok"
//	fail=N           the first N requests of a case: as said; later ones: 200
//	sleep=ms         before answering
//	chunked          with trailer x-trailer: t
//	toclose          a body that ends with the connection
//	close            connection: close
//	reset            close without an answer
//	partial          close in the middle of the body
//	early            a 103 first
//	raw=base64       exactly these bytes, then close
type backends struct {
	mu    sync.Mutex // protects the following
	seen  []string   // what arrived since the last drain, one text per request
	count int        // of requests since the last drain, but mirrored ones
}

// note keeps a request and returns its number in the case.
func (b *backends) note(text string, counts bool) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, text)
	if counts {
		b.count++
	}
	return b.count
}

// drain returns what arrived, and forgets it.
func (b *backends) drain() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.seen
	b.seen, b.count = nil, 0
	slices.Sort(out)
	return out
}

func (b *backends) arrived() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

// start serves under a name until the test ends and returns the port.
func (b *backends) start(t *testing.T, name string) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				b.serve(c, name)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

func (b *backends) serve(c net.Conn, name string) {
	r := bufio.NewReader(c)
	for {
		m, err := readMessage(r, "")
		if m == nil {
			return
		}
		if err != nil {
			m.lines = append(m.lines, "error: "+err.Error())
		}
		n := b.note("upstream "+name+"\n"+m.text(), name != "mirror")
		if err != nil || !b.answer(c, r, m, name, n) {
			return
		}
	}
}

// answer does what the request says, and tells whether to go on.
func (b *backends) answer(c net.Conn, r *bufio.Reader, m *message, name string, n int) bool {
	do := strings.Fields(m.header("x-do"))
	get := func(key, def string) string {
		for _, w := range do {
			if v, ok := strings.CutPrefix(w, key+"="); ok {
				return v
			}
		}
		return def
	}
	if k, err := strconv.Atoi(get("fail", "")); err == nil && n > k {
		do = nil
	}
	has := func(word string) bool { return slices.Contains(do, word) }
	if ms, err := strconv.Atoi(get("sleep", "")); err == nil {
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	if raw := get("raw", ""); raw != "" {
		if p, err := base64.StdEncoding.DecodeString(raw); err == nil {
			_, _ = c.Write(p)
		}
		return false
	}
	switch {
	case has("reset"):
		return false
	case strings.EqualFold(m.header("upgrade"), "websocket") && !has("noupgrade"):
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nx-backend: %s\r\n\r\n", name)
		_, _ = io.Copy(c, r)
		return false
	case has("early"):
		fmt.Fprintf(c, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
	}
	var w strings.Builder
	status, body := get("status", "200"), get("body", "ok")
	fmt.Fprintf(&w, "HTTP/1.1 %s X\r\nx-backend: %s\r\n", status, name)
	for _, d := range do {
		if v, ok := strings.CutPrefix(d, "h="); ok {
			w.WriteString(strings.Replace(v, ":", ": ", 1) + "\r\n")
		}
	}
	if has("close") || has("toclose") {
		w.WriteString("connection: close\r\n")
	}
	switch {
	case status == "204" || status == "304":
		w.WriteString("\r\n")
	case m.method() == "HEAD":
		w.WriteString("content-length: 1234\r\n\r\n")
	case has("chunked"):
		fmt.Fprintf(&w, "transfer-encoding: chunked\r\ntrailer: x-trailer\r\n\r\n%x\r\n%s\r\n0\r\nx-trailer: t\r\n\r\n", len(body), body)
	case has("toclose"):
		w.WriteString("\r\n" + body)
	case has("partial"):
		fmt.Fprintf(&w, "content-length: %d\r\n\r\n%s", len(body)+10, body)
	default:
		fmt.Fprintf(&w, "content-length: %d\r\n\r\n%s", len(body), body)
	}
	if _, err := io.WriteString(c, w.String()); err != nil {
		return false
	}
	return !has("close") && !has("toclose") && !has("partial")
}
