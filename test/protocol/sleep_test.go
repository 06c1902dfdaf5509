package protocol

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// Connections that are used just when they are about to be parked or to sleep, or do sleep, answer as any other.
func TestConnectionsThatSleepAnswer(t *testing.T) {
	t.Parallel() // waits more than it works
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port})
	const clients, long = 150, 14 * time.Second
	end := time.Now().Add(long)
	var wg sync.WaitGroup
	var answers, woken atomic.Int64
	for i := range clients {
		wg.Go(func() {
			c, err := dial(r.plain)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			rd := bufio.NewReader(c)
			for time.Now().Before(end) {
				// Parked after between half of http1.DefaultParkAfter and all of it, which is looked at in steps of a half.
				idle := []time.Duration{0, 1500, 3000, 4000}[rand.N(4)]*time.Millisecond + rand.N(100*time.Millisecond)
				time.Sleep(idle)
				n, pieces := 1, []string{idleRequest}
				switch i % 4 {
				case 1: // the first piece wakes
					pieces = []string{idleRequest[:7], idleRequest[7:]}
				case 2: // two at once
					n, pieces = 2, []string{idleRequest + idleRequest}
				case 3:
					pieces = []string{"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\n", "hello"}
				}
				for _, p := range pieces {
					if _, err := io.WriteString(c, p); err != nil {
						t.Errorf("after %v: %v", idle, err)
						return
					}
					time.Sleep(rand.N(2 * time.Millisecond))
				}
				for range n {
					resp, err := http.ReadResponse(rd, nil)
					if err != nil {
						t.Errorf("after %v: %v", idle, err)
						return
					}
					b, err := io.ReadAll(resp.Body)
					if err != nil || resp.StatusCode != 200 || len(b) == 0 {
						t.Errorf("after %v: %d, %q, %v", idle, resp.StatusCode, b, err)
						return
					}
					answers.Add(1)
				}
				if idle > 3*time.Second {
					woken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if woken.Load() < clients/3 {
		t.Errorf("%d of %d answers came after a sleep", woken.Load(), answers.Load())
	}
	t.Logf("%d answers, %d after a sleep", answers.Load(), woken.Load())
}

// Whoever sleeps when the proxy drains may still ask once, and is told that this was the last.
func TestADrainWakesWhoSleeps(t *testing.T) {
	t.Parallel()
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port, args: []string{"--drain-duration", "20s"}})
	one, other := openIdle(t, r.plain), openIdle(t, r.plain)
	defer one.Close()
	defer other.Close()
	time.Sleep(4 * time.Second) // http1.DefaultParkAfter, and some
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rd := bufio.NewReader(one)
	for begin, last := time.Now(), false; !last; time.Sleep(50 * time.Millisecond) { // until the signal has come
		say(t, one, idleRequest)
		resp, err := http.ReadResponse(rd, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		if last = resp.Close; time.Since(begin) > 10*time.Second {
			t.Fatal("no answer says that it is the last")
		}
	}
	_ = other.SetReadDeadline(time.Now().Add(15 * time.Second))
	if b, err := io.ReadAll(other); err != nil || len(b) > 0 {
		t.Errorf("a connection that sleeps and asks nothing: %q, %v", b, err)
	}
	proxytest.Until(t, "the proxy to end", func() bool { return !alive(r.pid) }) // before the rig tells it to a second time
}
