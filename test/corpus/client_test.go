package corpus

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	stepPause = 40 * time.Millisecond // between two writes of one case
	quiet     = 30 * time.Millisecond // in which nothing more must come
	patience  = 5 * time.Second       // for what must come
)

// seen is what a client saw.
type seen struct {
	statuses []string
	end      string // keep, or close
	body     string // of the last response
	raw      []byte
	err      error // a response that net/http does not understand
}

// methodsOf are the methods of the requests that responses belong to, as far as they are simple to see.
func methodOf(c *testCase, i int) string {
	if i < len(c.upstream) {
		if m, _, ok := bytes.Cut([]byte(c.upstream[i]), []byte(" ")); ok {
			return string(m)
		}
	}
	return "GET"
}

// talk sends a case over HTTP/1 and reads what comes back: until the connection ends, or want responses
// are there and nothing follows for a while. ready may end the wait too; it may be nil.
func talk(port int, c *testCase, want int, wait time.Duration) seen {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
	if err != nil {
		return seen{err: err}
	}
	defer conn.Close()
	sent, answered := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for i, b := range c.send {
			if i > 0 && c.then == "early" {
				select {
				case <-answered:
				case <-time.After(wait):
				}
			} else if i > 0 {
				time.Sleep(stepPause)
			}
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	}()
	var s seen
	raw := &bytes.Buffer{}
	r := bufio.NewReader(io.TeeReader(conn, raw))
	finals := 0
	for {
		if len(s.statuses) < want {
			_ = conn.SetReadDeadline(time.Now().Add(wait))
		} else {
			<-sent
			_ = conn.SetReadDeadline(time.Now().Add(quiet))
		}
		if _, err := r.Peek(1); err != nil {
			s.end = "close"
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				s.end = "keep"
			}
			break
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		resp, err := http.ReadResponse(r, &http.Request{Method: methodOf(c, finals)})
		if err != nil {
			s.err = err
			break
		}
		if s.statuses = append(s.statuses, strconv.Itoa(resp.StatusCode)); len(s.statuses) == 1 {
			close(answered)
		}
		if resp.StatusCode < 200 {
			continue
		}
		finals++
		b, err := io.ReadAll(resp.Body)
		s.body = string(b)
		if err != nil {
			s.statuses[len(s.statuses)-1] += "/cut"
			s.end = "close"
			break
		}
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	conn.Close()
	<-sent
	s.raw = raw.Bytes()
	return s
}

// talk2 sends a case over HTTP/2 and returns a status, reset or goaway, waiting for each frame for so long.
func talk2(port int, c *testCase, wait time.Duration) seen {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
	if err != nil {
		return seen{err: err}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	out := &bytes.Buffer{}
	out.WriteString(http2.ClientPreface)
	w := http2.NewFramer(out, nil)
	_ = w.WriteSettings()
	writeBlock(w, block(c.head), len(c.data) == 0 && c.trailers == nil)
	if c.then == "pause" {
		if _, err := conn.Write(out.Bytes()); err != nil {
			return seen{err: err}
		}
		out.Reset()
		time.Sleep(5 * stepPause) // also a busy machine has answered by then
	}
	send2(w, c)
	if _, err := conn.Write(out.Bytes()); err != nil {
		return seen{err: err}
	}
	f := http2.NewFramer(nil, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var s seen
	for {
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		fr, err := f.ReadFrame()
		if err != nil {
			s.err = fmt.Errorf("read a frame: %w", err)
			break
		}
		done := false
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			if v := fr.PseudoValue("status"); v != "" {
				s.statuses = append(s.statuses, v)
			}
			done = fr.StreamEnded()
			for _, h := range fr.Fields {
				s.raw = append(s.raw, h.Name+": "+h.Value+"\r\n"...)
			}
		case *http2.DataFrame:
			s.body += string(fr.Data())
			s.raw = append(s.raw, fr.Data()...)
			done = fr.StreamEnded()
		case *http2.RSTStreamFrame:
			if len(s.statuses) == 0 || fr.ErrCode != http2.ErrCodeNo {
				s.statuses = append(s.statuses, "reset")
			}
			done = true
		case *http2.GoAwayFrame:
			if fr.ErrCode != http2.ErrCodeNo {
				s.statuses = append(s.statuses, "goaway")
				done = true
			}
		}
		if done {
			break
		}
	}
	return s
}

// send2 writes the frames that follow the head of a case.
func send2(w *http2.Framer, c *testCase) {
	for i, d := range c.data {
		_ = w.WriteData(1, i == len(c.data)-1 && c.trailers == nil, d)
	}
	if c.trailers != nil {
		writeBlock(w, block(c.trailers), true)
	}
}

// writeBlock writes HEADERS and as many CONTINUATION frames as are needed.
func writeBlock(w *http2.Framer, b []byte, end bool) { writeBlockOn(w, 1, b, end) }

func writeBlockOn(w *http2.Framer, id uint32, b []byte, end bool) {
	n := min(len(b), 16<<10)
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:n], EndHeaders: n == len(b), EndStream: end})
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = min(len(b), 16<<10)
		_ = w.WriteContinuation(id, n == len(b), b[:n])
	}
}

func block(fields []pair) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range fields {
		_ = e.WriteField(hpack.HeaderField{Name: f.name, Value: f.value})
	}
	return b.Bytes()
}
