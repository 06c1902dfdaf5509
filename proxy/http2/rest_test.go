package http2

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	msg "weft.mesh/weft/proxy/stream"
)

// kept tells what a connection keeps that only streams need. The input is given back
// by [netio.Conn.Fill], which has tests of its own: without a socket it cannot be.
func (c *conn) kept() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := map[string]bool{"output": c.wbuf != nil, "spare output": c.spare != nil, "header block": c.block != nil}
	if c.server != nil {
		m["streams"], m["workers"] = c.server.free != nil, c.server.idlers != nil
	} else {
		m["streams"] = c.client.free != nil
	}
	for k, v := range m {
		if !v {
			delete(m, k)
		}
	}
	return m
}

// TestAConnectionAtRestKeepsNothing: both ends give everything back that they can some seconds after their last stream.
func TestAConnectionAtRestKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server *conn
		h := func(ctx context.Context, s msg.Server) {
			server = s.(*serverStream).c
			s.(msg.Blocker).Block() // makes workers
			unary()(ctx, s)
		}
		a, b := memnet.Pipe(memnet.Link{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(t.Context(), netio.New(b), ServerOptions{}, h)
		}()
		cc, err := NewClientConn(t.Context(), netio.New(a), &msg.ConnInfo{}, ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		busy := func() {
			for range 5 {
				if err := call(cc); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		for range 3 {
			busy()
			if k := server.kept(); !k["streams"] || !k["workers"] {
				t.Errorf("a server that was just busy keeps %v: nothing is reused", k)
			}
			if k := cc.kept(); !k["streams"] {
				t.Errorf("a client that was just busy keeps %v: nothing is reused", k)
			}
			time.Sleep(2*restAfter + time.Millisecond)
			synctest.Wait()
			if k := server.kept(); len(k) > 0 {
				t.Errorf("a server at rest keeps %v", k)
			}
			if k := cc.kept(); len(k) > 0 {
				t.Errorf("a client at rest keeps %v", k)
			}
		}
		cc.Close()
		<-done
		<-cc.Done()
	})
}
