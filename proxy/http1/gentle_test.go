package http1

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
)

func TestAGentleDrainMeetsNoRequestWithAClosingConnection(t *testing.T) {
	const gentle = 45 * time.Second
	start := func(t *testing.T) (io.ReadWriteCloser, chan struct{}, chan error) {
		drain := make(chan struct{})
		a, b := memnet.Pipe(memnet.Link{})
		done := make(chan error, 1)
		go func() {
			done <- ServeConn(t.Context(), netio.New(b), ServerOptions{Drain: drain, DrainTime: func() time.Duration { return gentle }, IdleTimeout: time.Hour}, echo)
		}()
		return a, drain, done
	}
	t.Run("an idle connection serves one more request and says that it is the last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, drain, done := start(t)
			synctest.Wait()
			close(drain)
			time.Sleep(gentle - time.Second)
			_, _ = a.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			out, _ := io.ReadAll(a)
			if err := <-done; err != nil {
				t.Error(err)
			}
			if !strings.Contains(string(out), "200 OK") || !strings.Contains(string(out), "connection: close\r\n") {
				t.Errorf("%q", out)
			}
		})
	})
	t.Run("one that says nothing ends when the time is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, drain, done := start(t)
			synctest.Wait()
			began := time.Now()
			close(drain)
			if err := <-done; err != nil || time.Since(began) < gentle || time.Since(began) > gentle+time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			_ = a.Close()
		})
	})
	t.Run("a request that begins at that moment is served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, drain, done := start(t)
			synctest.Wait()
			close(drain)
			time.Sleep(gentle - time.Millisecond)
			_, _ = a.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"))
			time.Sleep(10 * time.Second)
			_, _ = a.Write([]byte("bc"))
			out, _ := io.ReadAll(a)
			if err := <-done; err != nil {
				t.Error(err)
			}
			if !strings.HasSuffix(string(out), "connection: close\r\n\r\nabc") {
				t.Errorf("%q", out)
			}
		})
	})
}
