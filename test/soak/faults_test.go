package soak

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// pause waits, and tells whether the run goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// kill resets everything at the flaky upstreams again and again, and lets them come back.
func (s *run) kill(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 4*time.Second, 9*time.Second)) {
		up := s.y.down()
		s.flaky.kill()
		s.y.note("upstream kills", 1)
		pause(ctx, between(r, 100*time.Millisecond, time.Second))
		if err := s.flaky.start(); err != nil {
			s.y.fail("an upstream cannot come back: %v", err)
			return
		}
		up()
	}
}

// churn changes the configuration each second: several things at once.
func (s *run) churn(ctx context.Context, r *rand.Rand) {
	for pause(ctx, time.Second) {
		m := &s.mode
		m.n++ // routes: a header's value
		m.split = []int{0, 10, 50, 100}[r.IntN(4)]
		if r.IntN(2) == 0 {
			m.endpoints[r.IntN(3)] = 1 + r.IntN(3)
		}
		if r.IntN(3) == 0 {
			m.timeout = r.IntN(3)
		}
		if r.IntN(2) == 0 {
			m.extra = r.IntN(extras + 1)
		}
		if r.IntN(5) == 0 {
			m.moved++
		}
		if r.IntN(5) == 0 {
			s.cert, s.key = edgeCertificate(s.t, s.plane.ca)
			s.y.note("edge certificates", 1)
		}
		s.publish()
		s.y.note("configurations", 1)
	}
}

// cut takes the control plane away for some seconds.
func (s *run) cut(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 6*time.Second, 25*time.Second)) {
		s.y.note("control plane cuts", 1)
		s.plane.gate.cut(between(r, 100*time.Millisecond, 3*time.Second))
	}
}

// garbage is clients that do not keep to any protocol. The proxies must end them all.
func (s *run) garbage(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 100*time.Millisecond, 800*time.Millisecond)) {
		n := s.nodes[r.IntN(3)]
		ports := []int{n.Plain, n.Moved, n.TLS, n.TCP}
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[r.IntN(len(ports))]))
		if err != nil {
			continue // not every node has all of them
		}
		s.y.note("garbage clients", 1)
		noise := make([]byte, r.IntN(3000))
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		_, _ = io.WriteString(c, []string{
			"", string(noise), "GET / HTTP/1.1\r\nHost: app\r\n", "GET / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + string(noise),
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(noise), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x40\x00\x01\x05\x00\x00\x00\x01" + string(noise),
			"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(noise), "POST /none HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\nzz" + string(noise),
			"GET / HTTP/1.1\r\nHost: app\r\nX: " + strings.Repeat("a", 100000), "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
		}[r.IntN(10)])
		switch r.IntN(3) {
		case 0:
			resetConn(c)
		case 1:
			_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
		}
		_ = c.Close()
	}
}
