package main

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The one gRPC method: an empty message in, the description out. Both ends are this program, so it needs no .proto file.
const (
	echoService = "weft.mesh.echo.Echo"
	echoMethod  = "Describe"
)

type describer interface {
	describe(context.Context) (*wrapperspb.StringValue, error)
}

func serveGRPC(ctx context.Context, l net.Listener, port int) error {
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: echoService, HandlerType: (*describer)(nil),
		Methods: []grpc.MethodDesc{{MethodName: echoMethod, Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(&emptypb.Empty{}); err != nil {
				return nil, err
			}
			return srv.(describer).describe(ctx)
		}}},
	}, grpcServer(port))
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	return s.Serve(l)
}

// grpcServer is the port that it serves on.
type grpcServer int

func (g grpcServer) describe(ctx context.Context) (*wrapperspb.StringValue, error) {
	var b strings.Builder
	md, _ := metadata.FromIncomingContext(ctx)
	fact(&b, "Host", strings.Join(md[":authority"], ","))
	fact(&b, "Proto", "GRPC")
	fact(&b, "URL", "/"+echoService+"/"+echoMethod)
	if p, ok := peer.FromContext(ctx); ok {
		if ip, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
			fact(&b, "IP", ip)
		}
	}
	who(&b, int(g))
	for _, name := range slices.Sorted(maps.Keys(md)) {
		for _, v := range md[name] {
			if !strings.HasPrefix(name, ":") {
				fact(&b, "RequestHeader", name+":"+v)
			}
		}
	}
	return wrapperspb.String(b.String()), nil
}

func (q *question) grpcAsker() (asker, func(), error) {
	host := q.url.Host
	if q.url.Port() == "" {
		host = net.JoinHostPort(q.url.Hostname(), "7070")
	}
	c, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) (*answer, error) {
		for _, h := range q.headers {
			ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(h[0]), h[1])
		}
		var got metadata.MD
		var out wrapperspb.StringValue
		err := c.Invoke(ctx, "/"+echoService+"/"+echoMethod, &emptypb.Empty{}, &out, grpc.Header(&got))
		if err != nil && status.Code(err) != codes.Unimplemented && status.Code(err) != codes.PermissionDenied {
			return nil, err
		}
		return &answer{httpStatus(err), "GRPC", got, out.Value}, nil
	}, func() { c.Close() }, nil
}

// httpStatus: the suite compares gRPC answers with statuses of HTTP.
func httpStatus(err error) int {
	switch status.Code(err) {
	case codes.OK:
		return 200
	case codes.PermissionDenied:
		return 403
	}
	return 404
}
