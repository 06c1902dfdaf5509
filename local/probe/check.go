package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"weft.mesh/weft/local/podspec"
)

// maxBody is how much of a probe's answer is read.
const maxBody = 10 << 10

// Target is the pod that checks are made in.
type Target struct {
	IP   netip.Addr
	Dial func(ctx context.Context, network, address string) (net.Conn, error) // from inside the pod
	Exec func(ctx context.Context, argv []string) error                       // nil error: exit code 0
}

// Check makes one check. Its error says why it failed.
func (t Target) Check(ctx context.Context, p *podspec.Probe) error {
	switch {
	case p.HTTP != nil:
		return t.http(ctx, p.HTTP)
	case p.TCP != nil:
		c, err := t.Dial(ctx, "tcp", t.address(p.TCP.Host, p.TCP.Port))
		if err != nil {
			return fmt.Errorf("tcp probe: %w", err)
		}
		return c.Close()
	case p.GRPC != nil:
		return t.grpc(ctx, p.GRPC)
	}
	if err := t.Exec(ctx, p.Command); err != nil {
		return fmt.Errorf("command probe %q: %w", p.Command[0], err)
	}
	return nil
}

func (t Target) address(host string, port uint16) string {
	if host == "" {
		host = t.IP.String()
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func (t Target) http(ctx context.Context, p *podspec.HTTPProbe) error {
	scheme := "http"
	if p.HTTPS {
		scheme = "https"
	}
	addr := t.address(p.Host, p.Port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+p.Path, nil)
	if err != nil {
		return fmt.Errorf("http probe: %w", err)
	}
	req.Header.Set("User-Agent", "kube-probe/weft") // what programs know a kubelet by
	req.Header.Set("Accept", "*/*")
	for _, h := range p.Headers {
		if http.CanonicalHeaderKey(h[0]) == "Host" {
			req.Host = h[1]
			continue
		}
		req.Header.Add(h[0], h[1])
	}
	transport := &http.Transport{
		DialContext:       t.Dial,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // Kubernetes' probes check no certificate either
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("http probe: %w", err)
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, maxBody) // let the program finish its answer
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("http probe: GET %s://%s%s: status %d", scheme, addr, p.Path, resp.StatusCode)
	}
	return nil
}

func (t Target) grpc(ctx context.Context, p *podspec.GRPCProbe) error {
	addr := t.address("", p.Port)
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return t.Dial(ctx, "tcp", a) }))
	if err != nil {
		return fmt.Errorf("grpc probe: %w", err)
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: p.Service})
	if err != nil {
		return fmt.Errorf("grpc probe: %s: %w", addr, err)
	}
	if resp.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("grpc probe: %s: service %q is %s", addr, p.Service, resp.Status)
	}
	return nil
}
