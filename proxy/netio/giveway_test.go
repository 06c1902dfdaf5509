package netio_test

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// TestGiveWayLetsTheNetworkIn: beside goroutines that never have nothing to do, a connection's bytes are seen
// at once, and not when the runtime's monitor looks for them.
func TestGiveWayLetsTheNetworkIn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()

	// Turns of one of the busy ones, counted from the write to when its reader runs.
	const busy = 10
	var turns atomic.Int64
	var stop atomic.Bool
	over := make(chan struct{})
	for range busy {
		go func() {
			defer func() { over <- struct{}{} }()
			for !stop.Load() {
				for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
				}
				turns.Add(1)
				netio.GiveWay()
			}
		}()
	}
	var most, sum int64
	const rounds = 100
	wrote := make(chan int64)
	go func() {
		for range rounds {
			before := turns.Load()
			_, _ = out.Write([]byte{1})
			wrote <- before
		}
	}()
	for range rounds {
		if _, err := in.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		n := turns.Load() - <-wrote
		most, sum = max(most, n), sum+n
	}
	stop.Store(true)
	for range busy {
		<-over
	}
	// A write, a look, and what stands in line in between; 10 ms would be 200 turns.
	if sum > 20*rounds {
		t.Errorf("%d turns of others on average (%d at most) between a write and its read, want 20 at most", sum/rounds, most)
	}
	t.Logf("%.1f turns on average, %d at most", float64(sum)/rounds, most)
}

func TestGiveWayAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("budgets are measured without the race detector")
	}
	netio.GiveWay()
	if n := testing.AllocsPerRun(100, netio.GiveWay); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkGiveWay(b *testing.B) {
	for b.Loop() {
		netio.GiveWay()
	}
}
