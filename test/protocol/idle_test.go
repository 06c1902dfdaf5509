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

const (
	// maxIdleBytes is what an idle keep-alive connection that has served a request may cost: it sleeps soon, so that it
	// has no goroutine, and what it had is given back some seconds later.
	maxIdleBytes = 3 << 9
	// maxBurstBytes is what it may cost after all of them had a request on the way at the same time.
	maxBurstBytes = 9 << 10
	// settleTime is how long giving back may take; the budget of 10 s is of a machine that has nothing else to do.
	settleTime = 10 * time.Second
	busyTime   = 60 * time.Second
)

func TestAnIdleConnectionStaysCheap(t *testing.T) {
	t.Parallel() // waits more than it works
	count := 2000
	if s := os.Getenv("WEFT_IDLE_CONNECTIONS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil || count < 1 {
			t.Fatalf("WEFT_IDLE_CONNECTIONS=%q: want a number", s)
		}
	}
	limit := busyTime
	if os.Getenv("WEFT_QUIET_MACHINE") != "" {
		limit = settleTime
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
	for range 20 {
		conns = append(conns, openIdle(t, r.plain))
	}
	before := r.own()
	for range count {
		conns = append(conns, openIdle(t, r.plain))
	}
	within := func(what string, most int64) {
		t.Helper()
		begin := time.Now()
		for {
			each := (r.own() - before) / int64(count)
			if each <= most || time.Since(begin) > limit {
				t.Logf("%d idle connections, %s: %d bytes of its own resident memory each after %v (at most %d), %d KB in all",
					count, what, each, time.Since(begin).Round(100*time.Millisecond), most, r.own()>>10)
				if each > most {
					t.Errorf("%s: %d bytes each, want at most %d", what, each, most)
				}
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	within("each had a request", maxIdleBytes)
	// Half a head makes the proxy hold a buffer and a stack for each; whole requests at once would
	// be a test of the application's backlog.
	const half = len(idleRequest) / 2
	for _, c := range conns {
		say(t, c, idleRequest[:half])
	}
	for begin := time.Now(); r.own() < before+int64(count)*3*maxBurstBytes/2; {
		if time.Since(begin) > limit {
			t.Fatalf("%d KB, so the connections were not all active at once", r.own()>>10)
		}
		time.Sleep(10 * time.Millisecond)
	}
	peak := r.own()
	for _, c := range conns {
		say(t, c, idleRequest[half:])
		readApp(t, c)
	}
	t.Logf("%d KB when all were active", peak>>10)
	within("all were active at once", maxBurstBytes)
}

// openIdle is a connection that has served a request.
func openIdle(t *testing.T, port int) net.Conn {
	t.Helper()
	c, err := dial(port)
	if err != nil {
		t.Fatal(err)
	}
	say(t, c, idleRequest)
	readApp(t, c)
	return c
}

const idleRequest = "GET / HTTP/1.1\r\nHost: app\r\n\r\n"

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func readApp(t *testing.T, c net.Conn) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "app GET / " {
		t.Fatalf("%q, %v", b, err)
	}
}
