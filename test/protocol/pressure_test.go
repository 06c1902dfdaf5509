package protocol

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"weft.mesh/weft/proxy/proxytest"
)

const (
	offered   = 100 << 20 // what a sender has to send, in bytes
	slowRate  = 10 << 10  // bytes per second that a receiver takes
	slowFor   = 2 * time.Second
	maxGrowth = 4 << 20
	warmBytes = 16 << 10
)

// slowly reads at slowRate for slowFor, longer on a machine that is slower than that, and returns how much that was. It
// really sleeps: the rate of a reader is the thing tested, over the kernel's sockets and against another process, which no
// clock of this one can move.
func slowly(r io.Reader) (n int, err error) { return slowlyCounted(r, new(atomic.Int64)) }

// slowlyCounted counts as it reads.
func slowlyCounted(r io.Reader, took *atomic.Int64) (n int, err error) {
	buf := make([]byte, slowRate/10)
	for end := time.Now().Add(slowFor); n < slowRate || time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		k, err := io.ReadFull(r, buf)
		n += k
		took.Add(int64(k))
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// pressed is an application that offers much and takes little, and counts both.
type pressed struct{ sent, took atomic.Int64 }

func (p *pressed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "POST" {
		_, _ = slowlyCounted(r.Body, &p.took)
		return
	}
	buf := make([]byte, 64<<10)
	for range offered / len(buf) {
		n, err := w.Write(buf)
		p.sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func TestASlowReaderDoesNotMakeTheProxyGrow(t *testing.T) {
	t.Parallel() // waits more than it works
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port})
	time.Sleep(2500 * time.Millisecond) // the program gives back what its start took, once, 2 s after its configuration
	for _, tc := range []struct {
		name string
		path string
		h2   bool
		down func(*rig, string) (int, error)
		up   func(*rig, string) (int, error)
	}{
		{"HTTP/1 to HTTP/1", "/", false, downH1, upH1},
		{"HTTP/1 to HTTP/2", "/h2/", false, downH1, upH1},
		{"HTTP/2 to HTTP/1", "/", true, downH2, upH2},
		{"HTTP/2 to HTTP/2", "/h2/", true, downH2, upH2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			warm(t, app, fmt.Sprintf("http://127.0.0.1:%d%s", r.plain, tc.path), tc.h2)
			p := &pressed{}
			app.Handle(p.ServeHTTP)
			p.press(t, r, func() (int, error) { return tc.down(r, tc.path) }, func() (int, error) { return tc.up(r, tc.path) })
		})
	}
}

// warm makes requests of the kind that is measured afterwards: what the first of them bring into memory, program text
// above all, is not growth.
func warm(t *testing.T, app *proxytest.App, url string, h2 bool) {
	t.Helper()
	app.Handle(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, warmBytes))
	})
	only := new(http.Protocols)
	only.SetHTTP1(!h2)
	only.SetHTTP2(h2 && strings.HasPrefix(url, "https"))
	only.SetUnencryptedHTTP2(h2 && !only.HTTP2())
	for range 20 {
		tr := &http.Transport{Protocols: only, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
		c := http.Client{Transport: tr, Timeout: 20 * time.Second}
		resp, err := c.Post(url, "application/octet-stream", bytes.NewReader(make([]byte, warmBytes)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		tr.CloseIdleConnections()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %v", resp.StatusCode, err)
		}
	}
}

// press runs a download and an upload at once and looks at what the proxy holds meanwhile.
func (p *pressed) press(t *testing.T, r *rig, down, up func() (int, error)) {
	t.Helper()
	before := r.rss()
	var grown atomic.Int64
	stop := make(chan struct{})
	var watch, work sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				grown.Store(max(grown.Load(), r.rss()-before))
			}
		}
	})
	var got, pushed int
	work.Go(func() {
		var err error
		if got, err = down(); err != nil {
			t.Errorf("download: %v", err)
		}
	})
	work.Go(func() {
		var err error
		if pushed, err = up(); err != nil {
			t.Errorf("upload: %v", err)
		}
	})
	work.Wait()
	close(stop)
	watch.Wait()
	t.Logf("down: %d KB offered and sent, %d KB read; up: %d KB sent, %d KB taken; resident memory grew by %d KB",
		p.sent.Load()>>10, got>>10, pushed>>10, p.took.Load()>>10, grown.Load()>>10)
	if grown.Load() >= maxGrowth {
		t.Errorf("resident memory grew by %d KB, want less than %d", grown.Load()>>10, maxGrowth>>10)
	}
	if got < slowRate || p.took.Load() < slowRate/5 { // an upload ends after slowFor, however slow the machine is
		t.Errorf("nothing flows: %d bytes down, %d up", got, p.took.Load())
	}
	// The kernel holds up to some 10 MB for each hop over loopback; the rest must have stayed with its sender.
	if p.sent.Load() > offered/2 || pushed > offered/2 {
		t.Errorf("%d bytes were sent down and %d up to receivers that took next to nothing", p.sent.Load(), pushed)
	}
}

func downH1(r *rig, path string) (int, error) {
	c, err := dial(r.plain)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	smallReads(c)
	return downOn(c, path)
}

// smallReads keeps the kernel from reading ahead of a slow reader.
func smallReads(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.(*net.TCPConn).SetReadBuffer(8 << 10)
}

// downOn reads an answer slowly.
func downOn(c net.Conn, path string) (int, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: app\r\n\r\n", path); err != nil {
		return 0, err
	}
	return slowly(c)
}

// push writes until the time is over or everything is written.
func push(c net.Conn, write func([]byte) (int, error)) (n int, err error) {
	_ = c.SetWriteDeadline(time.Now().Add(slowFor))
	buf := make([]byte, 16<<10)
	for n < offered {
		k, err := write(buf)
		n += k
		if e, ok := err.(net.Error); ok && e.Timeout() {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func upH1(r *rig, path string) (int, error) {
	c, err := dial(r.plain)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return upOn(c, path)
}

// upOn sends a body as fast as it is taken.
func upOn(c net.Conn, path string) (int, error) {
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n", path, offered); err != nil {
		return 0, err
	}
	return push(c, c.Write)
}

// downH2 opens all windows wide and reads from its socket slowly, so that nothing but TCP holds the proxy back.
func downH2(r *rig, path string) (int, error) {
	h, err := r.dialH2(r.plain, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	if err != nil {
		return 0, err
	}
	defer h.Close()
	smallReads(h.Conn)
	if err := h.WriteWindowUpdate(0, 1<<30); err != nil {
		return 0, err
	}
	if err := h.request(1, true, "GET", path); err != nil {
		return 0, err
	}
	return slowly(h.Conn)
}

// upH2 sends as the windows allow, and then waits for more.
func upH2(r *rig, path string) (int, error) {
	h, err := r.dialH2(r.plain)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	if err := h.request(1, false, "POST", path); err != nil {
		return 0, err
	}
	_ = h.SetDeadline(time.Now().Add(slowFor))
	conn, str, n := 65535, 65535, 0
	for n < offered {
		k := min(conn, str, 16<<10)
		if k == 0 {
			f, err := h.ReadFrame()
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return n, nil
			}
			if err != nil {
				return n, err
			}
			switch f := f.(type) {
			case *http2.WindowUpdateFrame:
				if f.StreamID == 0 {
					conn += int(f.Increment)
				} else {
					str += int(f.Increment)
				}
			case *http2.SettingsFrame:
				if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
					str += int(v) - 65535
				}
			case *http2.RSTStreamFrame, *http2.GoAwayFrame, *http2.HeadersFrame:
				return n, fmt.Errorf("unexpected %v", f)
			}
			continue
		}
		if err := h.WriteData(1, false, make([]byte, k)); err != nil {
			return n, err
		}
		conn, str, n = conn-k, str-k, n+k
	}
	return n, nil
}
