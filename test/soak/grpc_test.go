package soak

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const maxMessage = 8 << 20

// echoService is a gRPC service without generated code: bytes in, bytes out. A message is "id size\n" and a
// payload; its answer is the mark of what belongs to it, and that.
var echoService = grpc.ServiceDesc{
	ServiceName: "soak.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &wrapperspb.BytesValue{}
		if err := dec(in); err != nil {
			return nil, err
		}
		out, err := grpcAnswer(in.GetValue())
		return &wrapperspb.BytesValue{Value: out}, err
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		n := 0
		for ; ; n++ {
			in := &wrapperspb.BytesValue{}
			if err := s.RecvMsg(in); err == io.EOF {
				break
			} else if err != nil {
				return err
			}
			out, err := grpcAnswer(in.GetValue())
			if err != nil {
				return err
			}
			if err := s.SendMsg(&wrapperspb.BytesValue{Value: out}); err != nil {
				return err
			}
		}
		s.SetTrailer(metadata.Pairs("x-end", fmt.Sprint(n)))
		return nil
	}}},
}

func grpcAnswer(in []byte) ([]byte, error) {
	head, payload, ok := bytes.Cut(in, []byte("\n"))
	var w want
	if _, err := fmt.Sscanf(string(head), "%s %d", &w.id, &w.size); !ok || err != nil || w.size < 0 || w.size > maxMessage {
		return nil, fmt.Errorf("bad message %.60q", in)
	}
	w.sum = sumOf(payload)
	out := bytes.NewBufferString(w.mark())
	_, err := io.Copy(out, w.body())
	return out.Bytes(), err
}

// grpcMessage is a request and what answers it.
func grpcMessage(id string, size, send int) (*wrapperspb.BytesValue, want) {
	payload := random(id, send)
	return wrapperspb.Bytes(append(fmt.Appendf(nil, "%s %d\n", id, size), payload...)), want{id: id, size: size, sum: sumOf(payload)}
}

func checkMessage(w want, out []byte) error {
	if len(out) < 32 || string(out[:32]) != w.mark() {
		return wrongf("gRPC answer of %d bytes begins with %.40q, want %s", len(out), out, w.mark())
	}
	return whole(compare(bytes.NewReader(out[32:]), w.body()))
}

// grpcClients are connections to both proxies.
type grpcClients [2]*grpc.ClientConn

func newGRPC(t testing.TB, addrs [2]string) (c grpcClients) {
	for i, a := range addrs {
		var err error
		c[i], err = grpc.NewClient("passthrough:///"+a, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("app"),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)), grpc.WithDisableRetry(), grpc.WithIdleTimeout(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c[i].Close() })
	}
	return c
}

// run does one operation: a unary call, or a stream of some messages.
func (c grpcClients) run(ctx context.Context, r *rand.Rand, o op) (kind string, err error) {
	lane := "calm"
	if o.flaky {
		lane = "flaky"
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "x-lane", lane)
	if r.IntN(2) == 0 {
		m, w := grpcMessage(o.id, o.size, max(o.send, 0))
		out := &wrapperspb.BytesValue{}
		if err := c[o.via].Invoke(ctx, "/soak.Echo/Unary", m, out, grpc.WaitForReady(true)); err != nil {
			return "gRPC unary", err
		}
		return "gRPC unary", checkMessage(w, out.GetValue())
	}
	return "gRPC stream", c.stream(ctx, r, o)
}

func (c grpcClients) stream(ctx context.Context, r *rand.Rand, o op) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c[o.via].NewStream(ctx, &echoService.Streams[0], "/soak.Echo/Bidi", grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	count := 1 + r.IntN(20)
	pause := o.pause(r, count, 20*time.Millisecond)
	wants := make(chan want, count)
	sizes := make([]int, count)
	for i := range sizes {
		sizes[i] = size(r, 40000)
	}
	sent := make(chan error, 1)
	go func() {
		defer close(wants)
		for i, n := range sizes {
			m, w := grpcMessage(fmt.Sprintf("%s.%d", o.id, i), n, n/2)
			if err := s.SendMsg(m); err != nil {
				sent <- err
				return
			}
			wants <- w
			time.Sleep(pause)
		}
		sent <- s.CloseSend()
	}()
	defer func() { cancel(); <-sent }()
	got := 0
	for w := range wants {
		out := &wrapperspb.BytesValue{}
		if err := s.RecvMsg(out); err != nil {
			return err
		}
		if err := checkMessage(w, out.GetValue()); err != nil {
			return err
		}
		if got++; o.fault == abort && got > count/2 {
			return nil // leaves in the middle
		}
	}
	if err := s.RecvMsg(&wrapperspb.BytesValue{}); err == nil {
		return wrongf("one message more than %d", count)
	} else if err != io.EOF {
		return err
	}
	if end := strings.Join(s.Trailer().Get("x-end"), ","); got == count && end != fmt.Sprint(count) {
		return wrongf("trailer x-end %q after %d messages", end, count)
	}
	return nil
}
