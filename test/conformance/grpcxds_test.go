package conformance

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/server"
)

// liveControl is a real control plane on free ports.
type liveControl struct {
	t     *testing.T
	plain string // plaintext xDS
	http  *http.Client
}

func startLiveControl(t *testing.T) *liveControl {
	t.Helper()
	cp := &liveControl{t: t}
	state := t.TempDir()
	s, err := server.New(server.Settings{
		StateDir: state,
		Address:  "127.0.0.1",
		Listen: func(network, address string) (net.Listener, error) {
			l, err := net.Listen(network, "127.0.0.1:0")
			if err == nil && strings.HasSuffix(address, ":15010") {
				cp.plain = l.Addr().String()
			}
			return l, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("control plane: %v", err)
		}
	})
	cp.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		for {
			c, err := d.DialContext(ctx, "unix", filepath.Join(state, admin.SocketControl))
			if err == nil {
				return c, nil
			}
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(5 * time.Millisecond):
			}
		}
	}}}
	return cp
}

// grpcBackend is a health server that says who it is in a header.
func grpcBackend(t *testing.T, name string) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, namedHealth{name: name})
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

type namedHealth struct {
	healthpb.UnimplementedHealthServer
	name string
}

func (h namedHealth) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs("backend", h.name)); err != nil {
		return nil, err
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func proxylessClient(t *testing.T, server, target string) healthpb.HealthClient {
	t.Helper()
	bootstrap := fmt.Sprintf(`{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"node": {"id": "sidecar~127.0.0.1~client.default~default.svc.cluster.local", "metadata": {"GENERATOR": "grpc", "NAMESPACE": "default"}}
	}`, server)
	r, err := xds.NewXDSResolverWithConfigForTesting([]byte(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+target, grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// backend calls and returns who answered.
func backend(ctx context.Context, c healthpb.HealthClient) (string, error) {
	var h metadata.MD
	r, err := c.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&h), grpc.WaitForReady(true))
	if err != nil {
		return "", err
	}
	if r.GetStatus() != healthpb.HealthCheckResponse_SERVING || len(h.Get("backend")) != 1 {
		return "", fmt.Errorf("answer %v with header %v", r, h)
	}
	return h.Get("backend")[0], nil
}

func echoEntry(ports map[string]int) string {
	y := `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: echo}
spec:
  hosts: [echo.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 50051, name: grpc, protocol: GRPC}]
  endpoints:
`
	for name, port := range ports {
		y += fmt.Sprintf("  - {address: 127.0.0.1, ports: {grpc: %d}, labels: {version: %s}}\n", port, name)
	}
	return y
}

const echoSubsets = `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo}
spec:
  host: echo.test
  trafficPolicy: {tls: {mode: DISABLE}}
  subsets:
  - {name: blue, labels: {version: blue}}
  - {name: green, labels: {version: green}}
`

func echoRoute(subset string) string {
	return `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  hosts: [echo.test]
  http:
  - route: [{destination: {host: echo.test, subset: ` + subset + `}}]
`
}

func TestProxylessGRPCTakesItsConfigOverStateOfTheWorld(t *testing.T) {
	cp := startLiveControl(t)
	ports := map[string]int{"blue": grpcBackend(t, "blue"), "green": grpcBackend(t, "green")}
	apply(t, cp, echoEntry(ports)+echoSubsets+echoRoute("blue"))
	c := proxylessClient(t, cp.plain, "echo.test:50051")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for range 5 {
		got, err := backend(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if got != "blue" {
			t.Fatalf("answered by %q, the route names blue", got)
		}
	}
	// A change of the route reaches the running client. grpc-go puts the new route in force before its
	// balancer knows the cluster that it names (ClientConn updates the config selector first), and fails
	// calls in between with this one message; no other failure is its own.
	apply(t, cp, echoRoute("green"))
	for {
		got, err := backend(ctx, c)
		if err != nil && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "unknown cluster selected")) {
			t.Fatalf("during the change: %v", err)
		}
		if got == "green" {
			break
		}
	}
	for range 5 {
		if got, err := backend(ctx, c); err != nil || got != "green" {
			t.Fatalf("after the change: answered by %q, %v", got, err)
		}
	}
}

func TestProxylessGRPCLearnsThatAServiceDoesNotExist(t *testing.T) {
	cp := startLiveControl(t)
	apply(t, cp, echoEntry(map[string]int{"blue": grpcBackend(t, "blue")}))
	c := proxylessClient(t, cp.plain, "nowhere.test:50051")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	_, err := c.Check(ctx, &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("err = %v, want Unavailable", err)
	}
}
