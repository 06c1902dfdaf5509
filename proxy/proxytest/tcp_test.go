package proxytest

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

func dial(t testing.TB, port int) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestTCPGoesOverMutualTLSWithHalfCloseAndMetrics(t *testing.T) {
	for _, alpn := range []string{"istio", "istio-peer-exchange"} {
		t.Run("ALPN "+alpn, func(t *testing.T) {
			p := startPair(t, pairOptions{app: StartEcho(t), tcp: true, alpn: alpn, strict: true})
			c := dial(t, p.port)
			const size = 1 << 20
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write([]byte(strings.Repeat("x", size)))
				if err == nil {
					err = c.CloseWrite()
				}
				sent <- err
			}()
			b, err := io.ReadAll(c)
			if err != nil || len(b) != size {
				t.Fatalf("%d bytes came back, %v", len(b), err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			p.callee.WaitStat("istio_tcp_connections_closed_total{")
			p.caller.WaitStat("istio_tcp_connections_closed_total{")
			in := metric(p.callee.Get("/stats/prometheus"), "istio_tcp_received_bytes_total")
			for _, want := range []string{`reporter="destination"`, `source_principal="` + SPIFFE("web") + `"`, `connection_security_policy="mutual_tls"`} {
				if !strings.Contains(in, want) {
					t.Errorf("metric lacks %s:\n%s", want, in)
				}
			}
			if !strings.Contains(in, "1.048576e+06") && !strings.Contains(in, " 1048576") {
				t.Errorf("not 1 MiB received:\n%s", in)
			}
			if alpn == "istio-peer-exchange" && !strings.Contains(in, `source_workload="web"`) {
				t.Errorf("the peer's metadata was not exchanged:\n%s", grepLines(p.callee.Get("/stats/prometheus"), "istio_tcp_"))
			}
			out := metric(p.caller.Get("/stats/prometheus"), "istio_tcp_sent_bytes_total")
			if !strings.Contains(out, `destination_service="api.default.svc.cluster.local"`) || !strings.Contains(out, `reporter="source"`) {
				t.Errorf("caller's metric:\n%s", out)
			}
		})
	}
}

const networkRBAC = `- name: envoy.filters.network.rbac
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
      stat_prefix: tcp.
      rules: {action: ALLOW, policies: {p: {permissions: [{any: true}], principals: [{authenticated: {principal_name: {exact: 'spiffe://cluster.local/ns/default/sa/%s'}}}]}}}`

func TestTCPAuthorizationClosesTheConnection(t *testing.T) {
	for account, want := range map[string]bool{"web": true, "other": false} {
		p := startPair(t, pairOptions{app: StartEcho(t), tcp: true, rbac: fmt.Sprintf(networkRBAC, account), strict: true})
		c := dial(t, p.port)
		_, _ = c.Write([]byte("hi"))
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		if (string(b) == "hi") != want {
			t.Errorf("only %s may: %q came back", account, b)
		}
	}
}

func TestGRPCWithStreamsTrailersAndErrors(t *testing.T) {
	p := startPair(t, pairOptions{app: StartGRPC(t), protocol: protoHTTP2, alpn: "istio-h2"})
	conn, err := grpc.NewClient("127.0.0.1:"+strconv.Itoa(p.port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := testgrpc.NewTestServiceClient(conn)
	for name, run := range map[string]func(){
		"empty unary":      func() { interop.DoEmptyUnaryCall(ctx, client) },
		"large unary":      func() { interop.DoLargeUnaryCall(ctx, client) },
		"client streaming": func() { interop.DoClientStreaming(ctx, client) },
		"server streaming": func() { interop.DoServerStreaming(ctx, client) },
		"ping pong":        func() { interop.DoPingPong(ctx, client) },
		"empty stream":     func() { interop.DoEmptyStream(ctx, client) },
		"timeout":          func() { interop.DoTimeoutOnSleepingServer(ctx, client) },
		"cancel":           func() { interop.DoCancelAfterBegin(ctx, client) },
		"metadata":         func() { interop.DoCustomMetadata(ctx, client) },
		"status":           func() { interop.DoStatusCodeAndMessage(ctx, client) },
		"special status":   func() { interop.DoSpecialStatusMessage(ctx, client) },
		"unimplemented":    func() { interop.DoUnimplementedMethod(ctx, conn) },
	} {
		t.Run(name, func(*testing.T) { run() }) // interop's functions end the process when they fail
	}
	p.callee.WaitStat(`request_protocol="grpc"`)
	p.callee.WaitStat(`istio_request_messages_total{`)
}

func grepLines(text, with string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, with) {
			b.WriteString(line)
		}
	}
	return b.String()
}
