package protocol

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	_ "weft.mesh/weft/proxy/compile" // the types that configuration is made of
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/proxytest"
	"weft.mesh/weft/xds/canon"
	"weft.mesh/weft/xds/xdstest"
)

// binary is the weft-proxy that [TestMain] has built.
var binary string

func TestMain(m *testing.M) {
	if order := os.Getenv(attackerEnv); order != "" {
		os.Exit(attackerMain(order))
	}
	dir, err := os.MkdirTemp("", "weft-protocol")
	if err == nil {
		binary = filepath.Join(dir, "weft-proxy")
		build := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", binary, "weft.mesh/weft/cmd/weft-proxy")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("build weft-proxy: %w\n%s", err, out)
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// rig is a weft-proxy in a process of its own, with three listeners in front of one application.
type rig struct {
	t     testing.TB
	plain int // HTTP/1.1 and h2c, told apart by the first bytes
	h2c   int // HTTP/2 without TLS and nothing else
	tls   int // the same over TLS, by ALPN
	admin int
	pid   int
	args  []string
	log   proxytest.SafeBuffer
	dir   string // of its files: access.log
}

// rigOptions say how a rig differs from Envoy's defaults.
type rigOptions struct {
	app            int    // port of the application
	good           int    // port of what serves /good; default app
	headersTimeout string // request_headers_timeout; default none
	requestTimeout string // request_timeout; default none
	streamIdle     string // stream_idle_timeout; default 5 min
	longest        string // max_stream_duration; default none
	idle           string // idle_timeout of connections; default 1 h
	// extra are more resources, separated from each other by lines with "---".
	extra string
	// args are more arguments of the program.
	args []string
	// env is added to the program's environment.
	env []string
	// ca signs the proxy's identity; nil: one of its own.
	ca *identitytest.CA
}

const rigFilters = `
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      codec_type: CODEC
      request_headers_timeout: {{.HeadersTimeout}}
      request_timeout: {{.RequestTimeout}}
      stream_idle_timeout: {{.StreamIdle}}
      common_http_protocol_options: {idle_timeout: {{.Idle}}, max_stream_duration: {{.Longest}}}
      http2_protocol_options: {allow_connect: true}
      upgrade_configs: [{upgrade_type: websocket}]
      route_config:
        name: local
        virtual_hosts:
        - name: all
          domains: ['*']
          routes:
          - {match: {path: /good}, route: {cluster: good, timeout: 0s}}
          - {match: {path: /direct}, direct_response: {status: 200, body: {inline_string: direct}}}
          - {match: {prefix: /h2/}, route: {cluster: h2, timeout: 0s}}
          - {match: {prefix: /}, route: {cluster: h1, timeout: 0s}}
      access_log:
      - name: envoy.access_loggers.file
        typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout}
      http_filters:
      - {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`

const rigClusters = `
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: h1
type: STATIC
connect_timeout: 20s
circuit_breakers: {thresholds: [{max_connections: 100000, max_requests: 100000, max_pending_requests: 100000}]}
load_assignment: {cluster_name: h1, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.App}}}}}}]}]}
---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: good
type: STATIC
connect_timeout: 20s
load_assignment: {cluster_name: good, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.Good}}}}}}]}]}
---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: h2
type: STATIC
connect_timeout: 20s
circuit_breakers: {thresholds: [{max_connections: 100000, max_requests: 100000, max_pending_requests: 100000}]}
load_assignment: {cluster_name: h2, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.App}}}}}}]}]}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
`

var rigConfig = rigClusters + `---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: plain
address: {socket_address: {address: 127.0.0.1, port_value: {{.Plain}}}}
traffic_direction: INBOUND
filter_chains:` + chains("AUTO") + `---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: h2c
address: {socket_address: {address: 127.0.0.1, port_value: {{.H2C}}}}
traffic_direction: INBOUND
filter_chains:` + chains("HTTP2") + `---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: tls
address: {socket_address: {address: 127.0.0.1, port_value: {{.TLS}}}}
traffic_direction: INBOUND
filter_chains:` + chains("AUTO") + `
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        alpn_protocols: [h2, http/1.1]
        tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
`

// chains is the filter chain with a codec_type.
func chains(codec string) string { return strings.ReplaceAll(rigFilters, "CODEC", codec) }

// startRig runs a proxy until the test ends.
func startRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, plain: proxytest.Port(t), h2c: proxytest.Port(t), tls: proxytest.Port(t), admin: proxytest.Port(t)}
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	var text strings.Builder
	err := template.Must(template.New("rig").Option("missingkey=error").Parse(rigConfig+o.more())).Execute(&text, map[string]any{
		"App": o.app, "Good": cmp.Or(o.good, o.app), "Plain": r.plain, "TLS": r.tls, "H2C": r.h2c,
		"HeadersTimeout": or(o.headersTimeout, "0s"), "RequestTimeout": or(o.requestTimeout, "0s"), "StreamIdle": or(o.streamIdle, "300s"), "Longest": or(o.longest, "0s"), "Idle": or(o.idle, "3600s"),
	})
	if err != nil {
		t.Fatal(err)
	}
	rs, err := canon.Parse([]byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	ads := xdstest.NewFakeServer()
	t.Cleanup(ads.Close)
	ads.Set(rs...)
	ca := o.ca
	if ca == nil {
		ca = identitytest.NewCA(t, "protocol")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	svc := identitytest.ServeWith(t, ln, ca, ca, func(g *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, ads) })
	svc.Set(func(s *identitytest.Service) { s.Token = "join" })
	r.start(ln.Addr().String(), identitytest.PEM(ca.Cert), o)
	return r
}

func (o *rigOptions) more() string {
	if o.extra == "" {
		return ""
	}
	return "---\n" + o.extra
}

// start runs the program and waits until it is ready.
func (r *rig) start(xds, roots string, o rigOptions) {
	t := r.t
	t.Helper()
	dir := t.TempDir()
	r.dir = dir
	for name, text := range map[string]string{"root.pem": roots, "token": "join\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"gateway", "--id", "edge-1", "--ip", "127.0.0.1", "--service-account", "edge",
		"--xds", xds, "--ca-root", filepath.Join(dir, "root.pem"), "--token-file", filepath.Join(dir, "token"), "--state-dir", filepath.Join(dir, "state"),
		"--admin-port", strconv.Itoa(r.admin), "--status-port", "0", "--ready-port", "0", "--metrics-port", "0",
		"--access-log-file", filepath.Join(dir, "access.log"), "--drain-duration", "100ms", "--log-level", "warning"}, o.args...)
	r.args = args
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), o.env...)
	cmd.Stderr = &r.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.pid = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("weft-proxy ended with %v", err)
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Errorf("weft-proxy did not end: %v", <-ended)
		}
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "access.log"))
			t.Logf("log of weft-proxy:\n%s\nend of its access log:\n%s", &r.log, b[max(0, len(b)-3000):])
		}
	})
	proxytest.Until(t, "the proxy to be ready", func() bool {
		code, _, err := r.tryGet("/ready")
		return err == nil && code == 200
	})
	proxytest.Until(t, "the listeners", func() bool {
		code, _, _, err := proxytest.TryCall("GET", r.plain, "/direct")
		return err == nil && code == 200
	})
}

// tryGet reads a page of the admin interface.
func (r *rig) tryGet(path string) (int, string, error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", r.admin, path))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

var goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)

// goroutines is how many the proxy has now.
func (r *rig) goroutines() int {
	r.t.Helper()
	_, text, err := r.tryGet("/debug/pprof/goroutine?debug=1")
	if err != nil {
		r.t.Fatal(err)
	}
	m := goroutineTotal.FindStringSubmatch(text)
	if m == nil {
		r.t.Fatalf("no number of goroutines in %.200q", text)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// rss is the proxy's resident memory in bytes.
func (r *rig) rss() int64 { return r.memory("VmRSS") }

// own is the resident memory that is no page of the program's file: those come and go with what is used of it.
func (r *rig) own() int64 { return r.memory("RssAnon") }

func (r *rig) memory(kind string) int64 {
	n, err := procKB(r.pid, kind)
	if err != nil {
		r.t.Fatal(err)
	}
	return n << 10
}

func procKB(pid int, key string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key+":" {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, errors.New("no " + key)
}

// fds is how many descriptors the proxy has open.
func (r *rig) fds() int {
	r.t.Helper()
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.pid))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(d)
}
