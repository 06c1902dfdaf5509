package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	maxProbesAtOnce = 64       // calls to the application at one time; more are turned away
	maxProbeBody    = 10 << 10 // bytes of the application's answer that are passed on, as kubelet reads
	maxRedirects    = 10       // as kubelet
)

// inboundSource is the address from which the application in our pod is called: capture leaves it alone.
var inboundSource = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 6)}

// appHealth adds a page for each probe of the application. There is no other way to name a
// target than the paths that were configured, so that nobody can use us as a proxy.
func (s *Server) appHealth(m *http.ServeMux) {
	running := make(chan struct{}, maxProbesAtOnce)
	for path, p := range s.set.AppProbes {
		m.HandleFunc(path, get(func(w http.ResponseWriter, r *http.Request) {
			select {
			case running <- struct{}{}:
				defer func() { <-running }()
			default:
				http.Error(w, "too many probes at once", http.StatusServiceUnavailable)
				return
			}
			s.probe(w, r, p)
		}))
	}
}

func (s *Server) probe(w http.ResponseWriter, r *http.Request, p AppProbe) {
	ctx := r.Context()
	if p.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("no answer within %v", p.Timeout))
		defer cancel()
	}
	var err error
	switch {
	case p.HTTP != nil:
		if err = s.probeHTTP(ctx, w, r, p.HTTP); err == nil {
			return
		}
	case p.TCP != nil:
		var c net.Conn
		if c, err = s.dialApp(ctx, p.TCP.Port); err == nil {
			err = c.Close()
		}
	default:
		err = s.probeGRPC(ctx, p.GRPC)
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) && cause != nil {
			err = cause
		}
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) appAddress(port uint16) string {
	ip := s.set.AppIP
	if !ip.IsValid() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(int(port)))
}

func (s *Server) dialApp(ctx context.Context, port uint16) (net.Conn, error) {
	var d net.Dialer
	if !s.set.AppIP.Is6() {
		d.LocalAddr = inboundSource
	}
	return d.DialContext(ctx, "tcp", s.appAddress(port))
}

// probeHTTP answers as the application does. An error is one of ours: nothing was written.
func (s *Server) probeHTTP(ctx context.Context, w http.ResponseWriter, r *http.Request, p *AppHTTP) error {
	u, err := url.Parse(p.Path)
	if err != nil {
		u = &url.URL{Path: p.Path} // as kubelet does
	}
	u.Scheme, u.Host = "http", s.appAddress(p.Port)
	if p.HTTPS {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", r.UserAgent()) // kubelet's: programs know it by that
	req.Header.Set("Accept", "*/*")
	for _, h := range p.Headers {
		switch http.CanonicalHeaderKey(h[0]) {
		case "Host":
			req.Host = h[1]
		case "User-Agent", "Accept":
			req.Header.Set(h[0], h[1])
		default:
			req.Header.Add(h[0], h[1])
		}
	}
	t := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialApp(ctx, p.Port) },
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, // kubelet verifies none either
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	client := &http.Client{Transport: t, CheckRedirect: sameHost}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	status := resp.StatusCode
	switch {
	case status < 200 || status > 999: // net/http takes "000" from a server and panics when told to write it
		return fmt.Errorf("the application answered with status %d, which ends no request", status)
	case status >= 300 && status < 400:
		status = http.StatusOK // a success to kubelet, which would miss the Location
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.CopyN(w, resp.Body, maxProbeBody) // the status is what counts
	return nil
}

// sameHost follows redirects within the application only, as kubelet does.
func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return errors.New("too many redirects")
	}
	return nil
}

func (s *Server) probeGRPC(ctx context.Context, p *AppGRPC) error {
	conn, err := grpc.NewClient("passthrough:///"+s.appAddress(p.Port), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.dialApp(ctx, p.Port) }),
		grpc.WithUserAgent("kube-probe/weft"), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxProbeBody)))
	if err != nil {
		return err
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: p.Service})
	if err = errors.Join(err, conn.Close()); err != nil {
		return err
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("service %q is %s", p.Service, resp.GetStatus())
	}
	return nil
}
