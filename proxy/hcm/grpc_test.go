package hcm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/http/grpcstats"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// grpcLoop is a proxy between grpc-go's interop client and server.
func grpcLoop(t *testing.T, change func(l *loop)) (testpb.TestServiceClient, *loop, func() []stream.Info) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	testpb.RegisterTestServiceServer(srv, interop.NewTestServer())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Stop(); <-done })

	gs, err := grpcstats.New(&grpcstatsv3.FilterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	infos := make(chan stream.Info, 1000)
	l := newLoop(t, true, true, nil, func(l *loop) {
		l.view.Clusters["app"].Endpoints[0].Addr = ln.Addr().(*net.TCPAddr).AddrPort()
		l.cfg.Filters = []filter.HTTP{gs}
		l.cfg.AccessLogs = []*config.AccessLog{{Log: func(i *stream.Info) { infos <- *i }}}
		if change != nil {
			change(l)
		}
	})
	cc, err := grpc.NewClient(l.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return testpb.NewTestServiceClient(cc), l, func() []stream.Info {
		var out []stream.Info
		within := time.Minute // it comes when the stream has ended here, which the client may learn before
		for {
			select {
			case i := <-infos:
				out, within = append(out, i), 200*time.Millisecond // and no other one
			case <-time.After(within):
				return out
			}
		}
	}
}

func payload(n int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, n)} }

func TestGRPCInteropPassesThrough(t *testing.T) {
	c, _, _ := grpcLoop(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	interop.DoEmptyUnaryCall(ctx, c)
	interop.DoLargeUnaryCall(ctx, c)
	interop.DoClientStreaming(ctx, c)
	interop.DoServerStreaming(ctx, c)
	interop.DoPingPong(ctx, c)
	interop.DoEmptyStream(ctx, c)
	interop.DoCustomMetadata(ctx, c)
	interop.DoStatusCodeAndMessage(ctx, c)
	interop.DoSpecialStatusMessage(ctx, c)
	interop.DoCancelAfterFirstResponse(ctx, c)
	interop.DoTimeoutOnSleepingServer(ctx, c)
}

func TestGRPCMessagesAreCounted(t *testing.T) {
	c, _, infos := grpcLoop(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 40000}, {Size: 1}}, Payload: payload(30000)}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = s.CloseSend()
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	is := infos()
	if len(is) != 1 || is[0].ReqMsgs != 3 || is[0].RespMsgs != 6 || is[0].GRPCCode != 0 || !is[0].GRPC {
		t.Errorf("%+v", is)
	}
}

func TestGRPCLocalRepliesAreStatuses(t *testing.T) {
	c, _, infos := grpcLoop(t, func(l *loop) { l.view.Clusters["app"].Endpoints = nil })
	_, err := c.EmptyCall(context.Background(), &testpb.Empty{})
	if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != "no healthy upstream" {
		t.Errorf("%v", err)
	}
	if is := infos(); len(is) != 1 || is[0].GRPCCode != 14 || is[0].Details != "no_healthy_upstream" {
		t.Errorf("%+v", is)
	}
}

func TestGRPCStatusesAreRetried(t *testing.T) {
	c, _, infos := grpcLoop(t, func(l *loop) {
		l.forward().Retry = &route.Retry{On: route.RetryGRPCUnavailable, Attempts: 2, BaseInterval: time.Millisecond, MaxInterval: time.Millisecond}
	})
	_, err := c.UnaryCall(context.Background(), &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: 14, Message: "later"}, Payload: payload(1000)})
	if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != "later" {
		t.Errorf("%v", err)
	}
	if is := infos(); len(is) != 1 || is[0].Attempts != 3 || is[0].Flags.String() != "URX" {
		t.Errorf("%+v", is)
	}
}

// The client, the proxy and the server watch the same deadline. Whoever notices it first, the client is told what it is.
func TestAShortGRPCDeadlineIsToldAsSuch(t *testing.T) {
	for name, use := range map[string]bool{"the proxy watches": true, "client and server do": false} {
		t.Run(name, func(t *testing.T) {
			c, _, infos := grpcLoop(t, func(l *loop) { l.forward().UseGRPC = use })
			const calls = 100
			for range calls {
				if err := callWithin(time.Millisecond, c); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("%v", err)
				}
			}
			if is := infos(); len(is) > calls { // one that was over before it was sent is none
				t.Errorf("%d requests: %+v", len(is), is)
			}
		})
	}
}

// callWithin asks a server that never answers.
func callWithin(d time.Duration, c testpb.TestServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: payload(27182)}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = s.Recv()
	return err
}

func TestAGRPCDeadlineBoundsTheUpstream(t *testing.T) {
	c, _, infos := grpcLoop(t, func(l *loop) { l.forward().UseGRPC = true })
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "k", "v"), 4*time.Second) // connecting takes part of it
	defer cancel()
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 1, IntervalUs: 60e6}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	is := infos()
	if len(is) != 1 || is[0].Duration > 30*time.Second {
		t.Errorf("%+v", is)
	}
}

func TestBigMessagesKeepTheirBytes(t *testing.T) {
	c, _, _ := grpcLoop(t, nil)
	body := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	r, err := c.UnaryCall(context.Background(), &testpb.SimpleRequest{ResponseSize: int32(len(body)), Payload: &testpb.Payload{Body: body}})
	if err != nil || len(r.GetPayload().GetBody()) != len(body) {
		t.Errorf("%v, %d bytes", err, len(r.GetPayload().GetBody()))
	}
}
