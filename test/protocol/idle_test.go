package protocol

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// An idle keep-alive connection that has served a request should cost wantIdleBytes. It does not
// yet: its goroutine keeps an 8 KB stack, because more than 2 KB of it are in use while it
// waits and the runtime does not shrink it then. maxIdleBytes keeps it from getting worse.
const (
	wantIdleBytes = 6 << 10
	maxIdleBytes  = 14 << 10
)

func TestAnIdleConnectionStaysCheap(t *testing.T) {
	count := 2000
	if s := os.Getenv("WEFT_IDLE_CONNECTIONS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil || count < 1 {
			t.Fatalf("WEFT_IDLE_CONNECTIONS=%q: want a number", s)
		}
	}
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port})
	time.Sleep(2500 * time.Millisecond) // the program gives back what its start took, once, 2 s after its configuration
	conns := make([]net.Conn, 0, count)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	open := func() {
		c, err := dial(r.plain)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "app GET / " {
			t.Fatalf("%q, %v", b, err)
		}
	}
	for range 20 {
		open()
	}
	before := r.rss()
	for range count {
		open()
	}
	each := (r.rss() - before) / int64(count)
	t.Logf("%d idle connections: %d bytes of resident memory each (we want %d), %d KB in all", count, each, wantIdleBytes, r.rss()>>10)
	if each > maxIdleBytes {
		t.Errorf("%d bytes each, want at most %d", each, maxIdleBytes)
	}
}
