package streamtest_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/stream/streamtest"
)

// unary is a gRPC-like exchange on reused memory: what an application below the proxy would do.
type unary struct {
	req      stream.Request
	body     []byte
	trailers bool
}

func newUnary(trailers bool) *unary {
	u := &unary{body: make([]byte, 128), trailers: trailers}
	u.req = stream.Request{Method: []byte("POST"), Scheme: []byte("http"), Authority: []byte("svc.ns:80"), Path: []byte("/pkg.Service/Method"),
		ContentLength: 128, TETrailers: true}
	u.req.Fields.Add("content-type", "application/grpc")
	u.req.Fields.Add("user-agent", "bench/1.0")
	u.req.Fields.Add("x-request-id", "4f9c6d1e-0000-4000-8000-123456789abc")
	u.req.Fields.Add("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	return u
}

func (u *unary) do(x stream.Client) error {
	defer x.Close()
	if err := errors.Join(x.WriteHead(&u.req, false), x.WriteBody(u.body, true)); err != nil {
		return err
	}
	if _, err := x.ReadHead(); err != nil {
		return err
	}
	n := 0
	for {
		p, err := x.ReadBody()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		n += len(p)
	}
	if n != 256 || u.trailers && x.Trailers() == nil {
		return errors.New("incomplete response")
	}
	return nil
}

// answer is the server's side of unary.
func answer(trailers bool) func(context.Context, stream.Server) {
	body := make([]byte, 256)
	var tr stream.Fields
	tr.Add("grpc-status", "0")
	type state struct{ resp stream.Response }
	pool := make(chan *state, 256)
	return func(_ context.Context, s stream.Server) {
		var st *state
		select {
		case st = <-pool:
		default:
			st = &state{}
		}
		for {
			if _, err := s.ReadBody(); err != nil {
				break
			}
		}
		r := &st.resp
		r.Reset()
		r.Status, r.ContentLength = 200, 256
		if trailers {
			r.ContentLength = stream.UnknownLength
		}
		r.Fields.Add("content-type", "application/grpc")
		r.Fields.Add("server", "bench")
		_ = s.WriteHead(r, false)
		_ = s.WriteBody(body, !trailers)
		if trailers {
			_ = s.WriteTrailers(&tr)
		}
		select {
		case pool <- st:
		default:
		}
	}
}

func TestExchangesDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("budgets are measured without the race detector")
	}
	for _, tt := range []struct {
		codec streamtest.Codec
		max   float64
	}{{one, 0}, {two, 0}} {
		t.Run(tt.codec.Name, func(t *testing.T) {
			s := streamtest.Direct(tt.codec, streamtest.Transport{Name: "TCP", Pair: streamtest.TCP}).Connect(t, streamtest.Limits{}, answer(tt.codec.Multiplexed))
			u := newUnary(tt.codec.Multiplexed)
			run := func() {
				x, err := s.Start()
				if err != nil {
					t.Fatal(err)
				}
				if err := u.do(x); err != nil {
					t.Fatal(err)
				}
			}
			for range 500 {
				run()
			}
			if n := testing.AllocsPerRun(2000, run); n > tt.max {
				t.Errorf("allocations per exchange, both ends together: %v, want at most %v", n, tt.max)
			}
		})
	}
}

func BenchmarkPing(b *testing.B) {
	for _, c := range []streamtest.Codec{one, two} {
		for _, tr := range streamtest.Transports()[1:] {
			b.Run(c.Name+" over "+tr.Name, func(b *testing.B) {
				s := streamtest.Direct(c, tr).Connect(b, streamtest.Limits{}, answer(c.Multiplexed))
				u := newUnary(c.Multiplexed)
				b.ReportAllocs()
				for b.Loop() {
					x, err := s.Start()
					if err != nil {
						b.Fatal(err)
					}
					if err := u.do(x); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkStreams: eight exchanges at once on one HTTP/2 connection.
func BenchmarkStreams(b *testing.B) {
	s := streamtest.Direct(two, streamtest.Transports()[1]).Connect(b, streamtest.Limits{}, answer(true))
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		u := newUnary(true)
		for pb.Next() {
			x, err := s.Start()
			if err != nil {
				b.Error(err)
				return
			}
			if err := u.do(x); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkBulk(b *testing.B) {
	chunk := make([]byte, 32<<10)
	for _, c := range []streamtest.Codec{one, two} {
		for _, tr := range streamtest.Transports()[1:] {
			b.Run(c.Name+" over "+tr.Name, func(b *testing.B) {
				s := streamtest.Direct(c, tr).Connect(b, streamtest.Limits{}, func(_ context.Context, s stream.Server) {
					_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: stream.UnknownLength}, false)
					for s.WriteBody(chunk, false) == nil {
					}
				})
				x, err := s.Start()
				if err != nil {
					b.Fatal(err)
				}
				if err := x.WriteHead(&stream.Request{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/")}, true); err != nil {
					b.Fatal(err)
				}
				if _, err := x.ReadHead(); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(chunk)))
				n := 0
				for b.Loop() {
					for n < len(chunk) {
						p, err := x.ReadBody()
						if err != nil {
							b.Fatal(err)
						}
						n += len(p)
					}
					n -= len(chunk)
				}
				x.Close()
			})
		}
	}
}
