package grpcstream_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"weft.mesh/weft/control/grpcstream"
)

// grownUp has connections lose goroutines of their own as soon as they are looked at.
func grownUp(s *grpcstream.Settings) { s.Youth, s.KeepAlive = time.Nanosecond, 20*time.Millisecond }

const grown = 100 * time.Millisecond // five looks

// Many connections that one goroutine listens to, all of which say something at once, again and again.
func TestManyConnectionsShareAGoroutine(t *testing.T) {
	r := start(t, grownUp)
	var wg, ready sync.WaitGroup
	for i := range 100 { // as many as the rig has room for
		c := r.client(t, insecure.NewCredentials())
		ready.Add(1)
		wg.Go(func() {
			s := talk(t, c)
			say(t, s, []byte("hello"))
			ready.Done()
			ready.Wait()
			time.Sleep(grown)
			for j := range 30 {
				b := bytes.Repeat([]byte{byte(i), byte(j)}, 1+i*j%700)
				if got := say(t, s, b); !bytes.Equal(got, b) {
					t.Errorf("connection %d: %d bytes came back as %d", i, len(b), len(got))
					return
				}
			}
		})
	}
	wg.Wait()
}

// A client that never stops talking holds up nobody.
func TestNobodyWaitsForAClientThatTalksWithoutEnd(t *testing.T) {
	r := start(t, grownUp)
	loud, other := talk(t, r.client(t, insecure.NewCredentials())), talk(t, r.client(t, insecure.NewCredentials()))
	say(t, loud, []byte("hello"))
	say(t, other, []byte("hello"))
	time.Sleep(grown)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := make([]byte, 8<<10); ; {
			select {
			case <-stop:
				_ = loud.CloseSend()
				return
			default:
			}
			if loud.SendMsg(b) != nil {
				return
			}
		}
	})
	wg.Go(func() {
		for b := []byte(nil); loud.RecvMsg(&b) == nil; {
		}
	})
	for i := range 50 {
		began := time.Now()
		say(t, other, []byte{byte(i)})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("an answer took %s", took)
		}
	}
	close(stop)
	wg.Wait()
}

// What a grown-up connection's client ends is ended at once, and so is everything at the server's end.
func TestTheEndOfAConnectionThatHasNoGoroutine(t *testing.T) {
	r := start(t, grownUp)
	c := r.client(t, insecure.NewCredentials())
	s := talk(t, c)
	say(t, s, []byte("hello"))
	e := <-r.opened
	time.Sleep(grown)
	c.Close()
	await(t, e.closed, "a client that has left keeps its stream")
	left := talk(t, r.client(t, insecure.NewCredentials())) // the rig's end is the test's
	say(t, left, []byte("hello"))
	time.Sleep(grown)
}
