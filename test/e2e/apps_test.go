package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// deployment is an ordinary manifest: a Deployment, its Service and its identity.
func deployment(name string, port int, portName string, command ...string) string {
	var args []string
	for _, c := range command {
		args = append(args, fmt.Sprintf("%q", c))
	}
	y := fmt.Sprintf(`apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, version: v1}}
    spec:
      serviceAccountName: %[1]s
      containers:
      - name: app
        image: example.test/%[1]s:latest
        command: [%[2]s]
`, name, strings.Join(args, ", "))
	if port == 0 {
		return y + "---\n"
	}
	return y + fmt.Sprintf(`        ports: [{containerPort: %[2]d}]
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports: [{port: %[2]d, name: %[3]s}]
---
`, name, port, portName)
}

// service and client principal that both sides' metrics must show.
const (
	clientID = `source_principal="spiffe://cluster.local/ns/default/sa/client"`
	mutual   = `connection_security_policy="mutual_tls"`
)

// wantCounted waits until a pod's metrics have a line with all texts.
func (m *mesh) wantCounted(pod string, texts ...string) {
	m.t.Helper()
	m.eventually(patience, fmt.Sprintf("metrics of %s with %v", pod, texts), func() (string, bool) {
		got := m.metric(pod, texts...)
		return strings.Join(m.metric(pod, "istio_"), "\n"), len(got) > 0
	})
}

// wantLogged waits until a sidecar's access log has a line with all texts.
func (m *mesh) wantLogged(pod string, texts ...string) {
	m.t.Helper()
	m.eventually(patience, fmt.Sprintf("access log of %s with %v", pod, texts), func() (string, bool) {
		out := m.must("logs", pod, "-c", "istio-proxy")
	lines:
		for l := range strings.Lines(out) {
			for _, x := range texts {
				if !strings.Contains(l, x) {
					continue lines
				}
			}
			return l, true
		}
		return out, false
	})
}

func TestPythonsHTTPServerWorksUnchanged(t *testing.T) {
	requireProgram(t, "python3", "curl")
	e := newEnv(t)
	requireNamespaces(t, e)
	m := e.up("--no-ingress", e.file("app.yaml",
		deployment("files", 8000, "http", "python3", "-m", "http.server", "8000")+
			deployment("client", 0, "", "bookinfo", "sleep")))
	m.ready("files", "client")
	for _, name := range []string{"files", "files.default", "files.default.svc", "files.default.svc.cluster.local"} {
		r := m.exec("client", "curl", "-sS", "-m", "60", "-o", "/dev/null", "-w", "%{http_code}", "http://"+name+":8000/")
		if r.code != 0 || r.stdout != "200" {
			t.Errorf("curl http://%s:8000/: %s", name, describe(r))
		}
	}
	m.wantCounted("files", "istio_requests_total", `reporter="destination"`, clientID, mutual, `response_code="200"`,
		`destination_principal="spiffe://cluster.local/ns/default/sa/files"`, `destination_service="files.default.svc.cluster.local"`, `source_workload="client"`)
	m.wantCounted("client", "istio_requests_total", `reporter="source"`, `destination_workload="files"`, `destination_service_name="files"`, `response_code="200"`)
	m.wantLogged("files", `"GET / HTTP/1.1" 200 - via_upstream`, "inbound|8000||", "outbound_.8000_._.files.default.svc.cluster.local")
	m.wantLogged("client", `"GET / HTTP/1.1" 200 - via_upstream`, "outbound|8000||files.default.svc.cluster.local")
}

func TestRedisWorksUnchangedOverTCP(t *testing.T) {
	requireProgram(t, "redis-server", "redis-cli")
	e := newEnv(t)
	requireNamespaces(t, e)
	m := e.up("--no-ingress", e.file("app.yaml",
		deployment("cache", 6379, "tcp-redis", "redis-server", "--port", "6379", "--save", "", "--protected-mode", "no")+
			deployment("client", 0, "", "bookinfo", "sleep")))
	m.ready("cache", "client")
	if r := m.exec("client", "redis-cli", "-h", "cache", "set", "thread", "weft"); strings.TrimSpace(r.stdout) != "OK" {
		t.Fatalf("set: %s", describe(r))
	}
	if r := m.exec("client", "redis-cli", "-h", "cache.default", "get", "thread"); strings.TrimSpace(r.stdout) != "weft" {
		t.Errorf("get: %s", describe(r))
	}
	// A value larger than any buffer on the way.
	if r := m.exec("client", "redis-cli", "-h", "cache", "eval", "return #redis.call('get', KEYS[1]) + string.len(string.rep('x', 3000000))", "1", "thread"); strings.TrimSpace(r.stdout) != "3000004" {
		t.Errorf("eval: %s", describe(r))
	}
	m.wantCounted("cache", "istio_tcp_connections_opened_total", `reporter="destination"`, clientID, mutual, `request_protocol="tcp"`,
		`destination_principal="spiffe://cluster.local/ns/default/sa/cache"`, `source_workload="client"`)
	m.wantCounted("client", "istio_tcp_sent_bytes_total", `reporter="source"`, `destination_workload="cache"`, `destination_service="cache.default.svc.cluster.local"`)
	m.wantLogged("cache", "inbound|6379||", "outbound_.6379_._.cache.default.svc.cluster.local")
}

// interop builds grpc-go's own interop programs.
func interop(t *testing.T, e *env) (server, client string) {
	t.Helper()
	dir := filepath.Join(e.bin, "interop")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"server", "client"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, p), "google.golang.org/grpc/interop/"+p)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build grpc-go's interop %s: %v\n%s", p, err, out)
		}
	}
	return filepath.Join(dir, "server"), filepath.Join(dir, "client")
}

func TestGRPCInteropWorksUnchanged(t *testing.T) {
	e := newEnv(t)
	requireNamespaces(t, e)
	server, client := interop(t, e)
	m := e.up("--no-ingress", e.file("app.yaml",
		deployment("interop", 10000, "grpc", server, "-port", "10000")+
			deployment("client", 0, "", "bookinfo", "sleep")))
	m.ready("interop", "client")
	for _, c := range []string{
		"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
		"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
		"unimplemented_method", "unimplemented_service",
	} {
		t.Run(c, func(t *testing.T) {
			r := m.exec("client", client, "-server_host", "interop", "-server_port", "10000", "-use_tls=false", "-test_case", c)
			if r.code != 0 {
				t.Errorf("%s: %s", c, describe(r))
			}
		})
	}
	m.wantCounted("interop", "istio_requests_total", `reporter="destination"`, clientID, mutual, `request_protocol="grpc"`, `grpc_response_status="0"`)
	m.wantCounted("interop", "istio_request_messages_total", `reporter="destination"`)
	m.wantLogged("interop", `"POST /grpc.testing.TestService/UnaryCall HTTP/2" 200`)
}
