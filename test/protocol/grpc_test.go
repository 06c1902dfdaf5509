package protocol

import (
	"bytes"
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	interop "google.golang.org/grpc/interop/grpc_testing"

	"weft.mesh/weft/proxy/proxytest"
)

// orcaConfig makes the client ask the server for its load, which two of the cases are about.
const orcaConfig = `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`

// interopCases are all cases of grpc-go's interop client, without those that need an account of a cloud
// provider. pick_first_unary has a server of its own: [identified].
var interopCases = []struct {
	name string
	args []string
}{
	{"empty_unary", nil},
	{"large_unary", nil},
	{"client_streaming", nil},
	{"server_streaming", nil},
	{"ping_pong", nil},
	{"empty_stream", nil},
	{"timeout_on_sleeping_server", nil},
	{"cancel_after_begin", nil},
	{"cancel_after_first_response", nil},
	{"status_code_and_message", nil},
	{"special_status_message", nil},
	{"custom_metadata", nil},
	{"unimplemented_method", nil},
	{"unimplemented_service", nil},
	{"rpc_soak", []string{"-soak_iterations", "50", "-soak_overall_timeout_seconds", "60"}},
	{"channel_soak", []string{"-soak_iterations", "20", "-soak_overall_timeout_seconds", "60"}},
	{"orca_per_rpc", []string{"-service_config_json", orcaConfig}},
	{"orca_oob", []string{"-service_config_json", orcaConfig}},
}

// buildInterop builds one of grpc-go's interop programs.
func buildInterop(t *testing.T, name string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", bin, "google.golang.org/grpc/interop/"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build grpc-go's interop %s: %v\n%s", name, err, out)
	}
	return bin
}

// startInterop runs grpc-go's interop server until the test ends.
func startInterop(t *testing.T) (port int) {
	t.Helper()
	port = proxytest.Port(t)
	cmd := exec.Command(buildInterop(t, "server"), "-port", strconv.Itoa(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out proxytest.SafeBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("interop server:\n%s", &out)
		}
	})
	proxytest.Until(t, "the interop server", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return port
}

func TestGRPCInteropPassesThroughTwoSidecars(t *testing.T) {
	t.Parallel() // waits more than it works
	client := buildInterop(t, "client")
	p := startPair(t, pairOptions{app: startInterop(t), between: "http2", up: "client"})
	for _, c := range interopCases {
		t.Run(c.name, func(t *testing.T) { runInterop(t, client, p.port, c.name, c.args) })
	}
	first := startPair(t, pairOptions{app: startIdentified(t), between: "http2", up: "client"})
	t.Run("pick_first_unary", func(t *testing.T) { runInterop(t, client, first.port, "pick_first_unary", nil) })
	p.callee.WaitStat(`request_protocol="grpc"`)
	p.callee.WaitStat(`source_principal="spiffe://cluster.local/ns/default/sa/web"`)
	p.callee.WaitStat(`istio_request_messages_total{`)
	p.callee.WaitStat(`istio_response_messages_total{`)
	p.caller.WaitStat(`grpc_response_status="12"`) // of unimplemented_method
	p.caller.WaitStat(`grpc_response_status="2"`)  // of status_code_and_message
}

// runInterop runs one case of the interop client.
func runInterop(t *testing.T, client string, port int, name string, args []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, client, append([]string{"-server_host", "127.0.0.1", "-server_port", strconv.Itoa(port), "-use_tls=false", "-test_case", name}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}

// identified is an interop server that says who it is, which pick_first_unary asks and grpc-go's own does not answer.
type identified struct {
	interop.UnimplementedTestServiceServer
}

func (identified) UnaryCall(_ context.Context, r *interop.SimpleRequest) (*interop.SimpleResponse, error) {
	resp := &interop.SimpleResponse{Payload: &interop.Payload{Body: make([]byte, r.ResponseSize)}}
	if r.FillServerId {
		resp.ServerId = "one"
	}
	return resp, nil
}

// startIdentified runs one until the test ends.
func startIdentified(t *testing.T) (port int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	interop.RegisterTestServiceServer(s, identified{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return ln.Addr().(*net.TCPAddr).Port
}
