package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// Types of the debug API that Istio's control plane serves over ADS, and istioctl asks for.
const (
	debugType     = "istio.io/debug" // a page of 15014, by its name as the resource's
	debugSyncType = debugType + "/syncz"
	debugDumpType = debugType + "/config_dump"
)

// Bounds of the debug API.
const (
	maxDebugStreams  = 8 // at once; each asks for one thing and goes
	maxDebugRequests = 64
	debugStreamTime  = 2 * time.Minute
	// debugAccount is whose token istioctl asks for, in the control plane's namespace: who may make one sees everything.
	debugAccount = "default"
)

// notHere is what istioctl looks for in the answer of a replica that the proxy is not connected to: it asks the next then.
const notHere = "Proxy not connected to this Pilot instance. It may be connected to another instance."

// debugCaller is who asks.
type debugCaller struct {
	id  spiffe.ID
	all bool
}

// namespace is whose proxies the caller may see; "": all.
func (c debugCaller) namespace() string {
	if c.all {
		return ""
	}
	ns, _, _ := c.id.Workload()
	return ns
}

// debugStream is a grpc.StreamServerInterceptor for 15012. It serves the debug API to callers that have a token and no
// certificate: proxies have certificates, and are none of its business. A token that nobody knows ends the stream, and one
// that is known is good for debug types and nothing else. The account that istioctl uses sees everything, any other the
// proxies of its own namespace.
func (s *Server) debugStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	token := bearerToken(ss.Context())
	if s.set.AttestCaller == nil || token == "" || info.FullMethod != discovery.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName {
		return next(srv, ss)
	}
	if id, err := ca.PeerID(ss.Context(), s.ca.TrustDomain()); err != nil || !id.IsZero() {
		return next(srv, ss)
	}
	ctx, cancel := context.WithTimeout(ss.Context(), debugStreamTime)
	defer cancel()
	turn := time.NewTimer(admissionWait)
	defer turn.Stop()
	select {
	case s.debugging <- struct{}{}:
		defer func() { <-s.debugging }()
	case <-turn.C:
		return status.Errorf(codes.ResourceExhausted, "debug: %d callers at once, the limit; try again", maxDebugStreams)
	case <-ctx.Done():
		return ctx.Err()
	}
	id, err := s.set.AttestCaller(ctx, token)
	if err != nil {
		s.set.Log.Warn("debug: a caller is refused", "error", err)
		return status.Errorf(codes.Unauthenticated, "debug: %v", err)
	}
	ns, account, ok := id.Workload()
	if !ok {
		return status.Errorf(codes.Unauthenticated, "debug: identity %q names no workload", id)
	}
	return s.serveDebug(ctx, ss, debugCaller{id: id, all: s.set.Namespace != "" && ns == s.set.Namespace && account == debugAccount})
}

// bearerToken is the token of a call's authorization header; "": none, or not one.
func bearerToken(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	v := md.Get("authorization")
	if len(v) != 1 || len(v[0]) < 7 || !strings.EqualFold(v[0][:7], "Bearer ") {
		return ""
	}
	return v[0][7:]
}

// serveDebug answers requests until the caller goes, has asked for enough, or took too long.
func (s *Server) serveDebug(ctx context.Context, ss grpc.ServerStream, c debugCaller) error {
	reqs, ended := make(chan *discovery.DiscoveryRequest), make(chan error, 1)
	go func() { // ends when serveDebug has returned: gRPC makes RecvMsg fail then
		for {
			r := &discovery.DiscoveryRequest{}
			if err := ss.RecvMsg(r); err != nil {
				ended <- err
				return
			}
			select {
			case reqs <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	nonce := ""
	for n := range maxDebugRequests {
		select {
		case <-ctx.Done():
			return status.Error(codes.DeadlineExceeded, "debug: ask again on another stream")
		case err := <-ended:
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
				return nil
			}
			return err
		case r := <-reqs:
			if nonce != "" && r.GetResponseNonce() == nonce {
				continue // the acknowledgement
			}
			out, err := s.answerDebug(ctx, c, r)
			if err != nil {
				return err
			}
			nonce = fmt.Sprintf("debug-%d", n)
			out.TypeUrl, out.Nonce, out.VersionInfo = r.GetTypeUrl(), nonce, nonce
			if err := ss.SendMsg(out); err != nil {
				return err
			}
		}
	}
	return status.Errorf(codes.ResourceExhausted, "debug: %d requests on one stream", maxDebugRequests)
}

// answerDebug answers one request.
func (s *Server) answerDebug(ctx context.Context, c debugCaller, r *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	out := &discovery.DiscoveryResponse{ControlPlane: s.self()}
	switch r.GetTypeUrl() {
	case debugSyncType:
		rs, err := s.clientConfigs(c.namespace())
		out.Resources = rs
		return out, err
	case debugDumpType:
		name, err := oneName(r)
		if err != nil {
			return nil, err
		}
		out.Resources, err = s.debugDump(c, name)
		return out, err
	case debugType:
		name, err := oneName(r)
		if err != nil {
			return nil, err
		}
		if !c.all {
			return nil, status.Errorf(codes.PermissionDenied, "debug: pages are for the account %s/%s, and the token is of %s", s.set.Namespace, debugAccount, c.id)
		}
		page, err := s.debugPage(ctx, name)
		out.Resources = []*anypb.Any{{TypeUrl: debugType, Value: page}}
		return out, err
	}
	return nil, status.Errorf(codes.PermissionDenied, "type %q: a token is good for %s, %s and %s; proxies come with a certificate", r.GetTypeUrl(), debugType, debugSyncType, debugDumpType)
}

func oneName(r *discovery.DiscoveryRequest) (string, error) {
	if n := len(r.GetResourceNames()); n != 1 {
		return "", status.Errorf(codes.InvalidArgument, "%s: %d resource names, want one", r.GetTypeUrl(), n)
	}
	return r.GetResourceNames()[0], nil
}

// debugDump is the dump of one proxy. One that the caller may not see is one that is not there.
func (s *Server) debugDump(c debugCaller, name string) ([]*anypb.Any, error) {
	n := s.nodes.find(name)
	if n == nil || c.namespace() != "" && n.Namespace != c.namespace() {
		return []*anypb.Any{{Value: []byte(notHere)}}, nil
	}
	rs, err := s.dump(n.Name+"."+n.Namespace, xds.PushOrder...)
	var gone *errNotConnected
	if errors.As(err, &gone) {
		return []*anypb.Any{{Value: []byte(notHere)}}, nil
	}
	return rs, err
}

// debugPage is what a page of 15014 says; one that is not there says so, as on 15014.
func (s *Server) debugPage(ctx context.Context, name string) ([]byte, error) {
	u, err := url.Parse("/debug/" + name)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "debug page %q: %v", name, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "debug page %q: %v", name, err)
	}
	var page capture
	s.debugMux().ServeHTTP(&page, r)
	return page.Bytes(), nil
}

// capture keeps what a page writes.
type capture struct{ bytes.Buffer }

// Header implements http.ResponseWriter.
func (*capture) Header() http.Header { return http.Header{} }

// WriteHeader implements http.ResponseWriter.
func (*capture) WriteHeader(int) {}

// self is how Istio's control plane names a replica: JSON in the identifier.
func (s *Server) self() *corev3.ControlPlane {
	v := version.Get()
	b, err := json.Marshal(map[string]any{"Component": "istiod", "ID": s.set.Name, "Info": map[string]string{
		"version": v.Version, "revision": v.Commit, "golang_version": v.Go, "status": "Weft", "tag": v.Version}})
	if err != nil {
		return nil // strings only
	}
	return &corev3.ControlPlane{Identifier: string(b)}
}
