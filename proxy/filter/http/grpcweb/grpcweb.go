// Package grpcweb lets browsers call gRPC services: it takes requests of
// gRPC-Web (binary and base64 text) for the gRPC requests that they carry, and
// puts the trailers of the answers, which browsers cannot see, into the body
// (grpc.io, gRPC-Web protocol). It does what Envoy's envoy.filters.http.grpc_web does.
//
// An answer that is no gRPC, from the upstream or from a filter behind this
// one, keeps its HTTP status, and its body becomes grpc-message.
// Other requests pass untouched. Bodies stream through; no more than 16 KiB of
// an answer that is no gRPC is kept, and nothing of others.
//
// It has no part in CORS: what the browser asks before a call (OPTIONS) passes on.
// Codings other than proto (application/grpc-web+json …) are not gRPC-Web to it, as to Envoy.
package grpcweb

import (
	"fmt"

	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/matcher"
	"weft.mesh/weft/proxy/stream"
)

// Name of the filter in Envoy's configuration.
const Name = "envoy.filters.http.grpc_web"

// Media types.
const (
	typeGRPC      = "application/grpc"
	typeWeb       = "application/grpc-web"
	typeWebProto  = "application/grpc-web+proto"
	typeText      = "application/grpc-web-text"
	typeTextProto = "application/grpc-web-text+proto"
)

// Filter has no settings. Immutable.
type Filter struct{}

var (
	_ filter.HTTP       = (*Filter)(nil)
	_ filter.Transcoder = (*Filter)(nil)
)

// New accepts the configuration, which is empty.
func New(c *grpcwebv3.GrpcWeb) (*Filter, error) {
	if err := matcher.Known(c); err != nil {
		return nil, fmt.Errorf("grpc_web: %w", err)
	}
	return &Filter{}, nil
}

// Name implements [filter.HTTP].
func (f *Filter) Name() string { return Name }

// Request implements [filter.HTTP]; the work is Transcode's.
func (f *Filter) Request(*filter.Stream) filter.Verdict { return filter.Continue }

// Response implements [filter.HTTP].
func (f *Filter) Response(*filter.Stream) {}

// Transcode implements [filter.Transcoder]: it makes a gRPC request of a gRPC-Web one.
func (f *Filter) Transcode(s *filter.Stream, srv stream.Server) stream.Server {
	fs := &s.Req.Fields
	text, web := kind(fs.Get("content-type"))
	if !web || len(s.Req.Path) == 0 || s.Req.Upgrade != nil {
		return nil
	}
	x := &exchange{Server: srv, s: s}
	x.in.on = text
	x.textOut = isText(fs.Get("accept"))
	fs.Set("content-type", typeGRPC)
	fs.Del("content-length")
	if srv.HasBody() {
		s.Req.ContentLength = stream.UnknownLength
	}
	s.Req.TETrailers = true
	if !fs.Has("grpc-accept-encoding") {
		fs.Add("grpc-accept-encoding", "identity")
	}
	s.Info.GRPC = true
	return x
}

// kind tells whether a content-type is gRPC-Web's, and whether it is the text form. Types with
// parameters are not, as to Envoy.
func kind(contentType []byte) (text, web bool) {
	switch string(contentType) {
	case typeWeb, typeWebProto:
		return false, true
	}
	text = isText(contentType)
	return text, text
}

func isText(mediaType []byte) bool {
	return string(mediaType) == typeText || string(mediaType) == typeTextProto
}
