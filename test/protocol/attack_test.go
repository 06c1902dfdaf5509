package protocol

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"
)

// attack is something that a client does to hurt.
type attack struct {
	name  string
	conns int // attackers at the same time
	pause time.Duration
	// run is one connection's attack: it returns in words how the proxy ended it.
	run func(r *rig) (string, error)
	// want is what all ends look like.
	want string
	// byRate: only so many in so much time are an attack. An attacker that gets no processor stays below that, and since none of it
	// is work for a stream, the idle time-out ends its connection.
	byRate bool
}

// attackIdle is the idle time-out of the proxy that is attacked.
const attackIdle = 4 * time.Second

// ended tells whether the proxy may have ended a connection of the attack like this.
func (a *attack) ended(end string, took time.Duration) bool {
	if a.byRate && end == "GOAWAY NO_ERROR" && took >= attackIdle {
		return true
	}
	return regexp.MustCompile("^(?:"+a.want+")$").MatchString(end) && took <= endsWithin
}

// attackFor is how long some attacks hold on by themselves.
const attackFor = time.Second

// h1 writes what next returns until it returns nil or the proxy closes, and says how
// the proxy ended the connection: the statuses it answered and "closed".
func h1(port int, next func(i int) []byte, pause time.Duration) (string, error) {
	c, err := dial(port)
	if err != nil {
		return "", err
	}
	defer c.Close()
	go func() {
		for i := 0; ; i++ {
			p := next(i)
			if p == nil {
				return
			}
			if _, err := c.Write(p); err != nil {
				return
			}
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}()
	b, err := io.ReadAll(io.LimitReader(c, 1<<20))
	end := ""
	for _, m := range statusLine.FindAllSubmatch(b, -1) {
		end += string(m[1]) + " "
	}
	if err != nil && !isReset(err) {
		return end, err
	}
	return end + "closed", nil
}

var statusLine = regexp.MustCompile(`(?m)^HTTP/1\.1 (\d+)`)

// once sends something once.
func once(s string) func(int) []byte {
	return func(i int) []byte {
		if i > 0 {
			return nil
		}
		return []byte(s)
	}
}

// after sends a beginning, and then something for ever.
func after(s, forever string) func(int) []byte {
	f := []byte(forever)
	return func(i int) []byte {
		if i == 0 {
			return []byte(s)
		}
		return f
	}
}

func attacksH1() []attack {
	head := "POST / HTTP/1.1\r\nHost: app\r\n"
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n"
	long := string(bytes.Repeat([]byte("a"), 16<<10))
	send := func(next func(int) []byte, pause time.Duration) func(*rig) (string, error) {
		return func(r *rig) (string, error) { return h1(r.plain, next, pause) }
	}
	return []attack{
		{name: "slowloris: a head byte by byte", conns: 200, run: send(after("GET / HTTP/1.1\r\nHost: app\r\nX: ", "a"), 100*time.Millisecond), want: "408 closed"},
		{name: "slow body byte by byte", conns: 100, run: send(after(head+"Content-Length: 1000\r\n\r\n", "a"), 100*time.Millisecond), want: "408 closed"},
		{name: "a body that never comes", conns: 100, run: send(once(head+"Content-Length: 1000\r\n\r\n"), 0), want: "(408|504) closed"},
		{name: "a response that is not read", conns: 5, run: slowRead, want: "closed"},
		{name: "a request line without end", conns: 4, run: send(after("GET /", long), 0), want: "4(14|31) closed"},
		{name: "a header line without end", conns: 4, run: send(after("GET / HTTP/1.1\r\nHost: app\r\nX: ", long), 0), want: "431 closed"},
		{name: "header lines without end", conns: 4, run: send(after("GET / HTTP/1.1\r\nHost: app\r\n", strings.Repeat("x: y\r\n", 20)), 0), want: "431 closed"},
		{name: "a chunk extension without end", conns: 4, run: send(after(chunked+"1;", long), 0), want: "4(00|31) closed"},
		{name: "trailers without end", conns: 4, run: send(after(chunked+"0\r\n", "x: "+long[:1000]+"\r\n"), 0), want: "4(00|31) closed"},
		{name: "a chunk size that overflows", conns: 4, run: send(once(chunked+"ffffffffffffffffff\r\n"), 0), want: "400 closed"},
		{name: "pipelining without reading", conns: 10, run: pipeline, want: "closed|held"},
		{name: "smuggling: length and chunks", conns: 4, run: send(once(head+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /good HTTP/1.1\r\nHost: app\r\n\r\n"), 0), want: "400 closed"},
		{name: "PROXY header where none is expected", conns: 4, run: send(once("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /good HTTP/1.1\r\nHost: app\r\n\r\n"), 0), want: "400 closed"},
		{name: "binary garbage", conns: 4, run: send(once("\x00\xff\x16\x03\x01PRI \x80\r\n\r\n"), 0), want: "400 closed"},
		{name: "connections that are closed at once", conns: 4, pause: 50 * time.Millisecond, run: churn, want: "closed"},
		{name: "connections that say nothing", conns: 500, run: send(func(int) []byte { return nil }, 0), want: "closed"},
		{name: "TLS handshakes that are not finished", conns: 200, run: halfTLS, want: "closed|held"},
		{name: "TLS handshakes for nothing", conns: 2, pause: 20 * time.Millisecond, run: handshakes, want: "closed"},
	}
}

// slowRead asks for much and takes nothing until the proxy should have given up.
func slowRead(r *rig) (string, error) {
	c, err := dial(r.plain)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /big HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
		return "", err
	}
	time.Sleep(6 * time.Second)
	n, err := io.Copy(io.Discard, c) // what is in the kernel's buffers, not all
	if n > 50<<20 || err != nil && !isReset(err) {
		return fmt.Sprintf("%d bytes", n), err
	}
	return "closed", nil
}

// pipeline sends requests and reads no response.
func pipeline(r *rig) (string, error) {
	c, err := dial(r.plain)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(attackFor))
	many := bytes.Repeat([]byte("GET /direct HTTP/1.1\r\nHost: app\r\n\r\n"), 1000)
	for range 10000 {
		if _, err := c.Write(many); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return "held", nil // the proxy reads no more than it can answer
			}
			if isReset(err) {
				return "closed", nil
			}
			return "", err
		}
	}
	return "took it all", nil
}
