package http2

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
)

func TestAGentleDrainSpreadsItsGoAways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gentle, conns = 40 * time.Second, 64
		drain := make(chan struct{})
		done := make(chan error, conns)
		var wires []*wire
		for range conns {
			a, b := memnet.Pipe(memnet.Link{})
			go func() {
				done <- ServeConn(t.Context(), netio.New(b), ServerOptions{Drain: drain, DrainTime: func() time.Duration { return gentle }}, ok)
			}()
			w := newWire(t, a)
			_, _ = a.Write([]byte(preface))
			_ = w.fr.WriteSettings()
			go w.listen()
			wires = append(wires, w)
		}
		synctest.Wait()
		close(drain)
		gone := func() (n int) {
			for _, w := range wires {
				if strings.Contains(strings.Join(w.frames(), " "), "GOAWAY 2147483647 NO_ERROR") {
					n++
				}
			}
			return n
		}
		time.Sleep(gentle / 2)
		synctest.Wait()
		if n := gone(); n < conns/4 || n > conns*3/4 {
			t.Errorf("%d of %d connections were told to go after half the time", n, conns)
		}
		time.Sleep(gentle / 2)
		synctest.Wait()
		if n := gone(); n != conns {
			t.Errorf("%d of %d connections were told to go in the end", n, conns)
		}
		for _, w := range wires {
			_ = w.c.Close()
		}
		for range conns {
			<-done
		}
	})
}
