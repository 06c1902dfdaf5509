package protocol

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/proxytest"
)

// What the balancer says of the client, in a header of version 1.
const (
	saidBy    = "203.0.113.7"
	said      = saidBy + ":4711 198.51.100.1:443"
	v1Header  = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
	badHeader = "PROXY TCP4 203.0.113.66 198.51.100.1 4711 443\r\n" // of a client that the policy denies
)

// startPeer runs an installed program until the test ends and waits for its ports.
func startPeer(t *testing.T, config string, ports []int, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path = "/usr/sbin/" + name; !executable(path) {
			t.Skipf("SKIPPED: %s is not installed (make deps)", name)
		}
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log proxytest.SafeBuffer
	cmd := exec.Command(path, append(args, file)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // a group of its own
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, &log)
		}
	})
	for _, p := range ports {
		proxytest.Until(t, name+" to listen", func() bool {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}

func executable(path string) bool {
	i, err := os.Stat(path)
	return err == nil && i.Mode()&0o111 != 0
}

// proxyPorts of the rig below.
type proxyPorts struct{ Required, Optional, TCP1, TCP2, TCPTLS int }

const proxyHCM = `
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: in
        use_remote_address: true
        route_config:
          name: local
          virtual_hosts:
          - name: all
            domains: ['*']
            routes:
            - {match: {prefix: /v1}, route: {cluster: v1}}
            - {match: {prefix: /v2}, route: {cluster: v2}}
            - {match: {prefix: /}, route: {cluster: h1}}
        access_log:
        - name: envoy.access_loggers.file
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
            path: /dev/stdout
            log_format: {text_format_source: {inline_string: "%REQ(:PATH)% %RESPONSE_CODE% remote=%DOWNSTREAM_REMOTE_ADDRESS% direct=%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% local=%DOWNSTREAM_LOCAL_ADDRESS%\n"}}
        http_filters:
        - name: envoy.filters.http.rbac
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
            rules: {action: DENY, policies: {client: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 203.0.113.66, prefix_len: 32}}]},
              balancer: {permissions: [{url_path: {path: {exact: /direct}}}], principals: [{direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}]}}}
        - {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`

func proxyListenerText(name string, port int, options, filters string) string {
	return fmt.Sprintf(`
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: %s
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
listener_filters:
- name: envoy.filters.listener.proxy_protocol
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol%s}
filter_chains:
- filters:%s
---`, name, port, options, filters)
}

func tcpFilter(cluster string) string {
	return ` [{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: ` + cluster + `}}]`
}

func proxyCluster(name string, port int, version, inner string) string {
	return fmt.Sprintf(`
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: %s
type: STATIC
connect_timeout: 20s
load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
transport_socket:
  name: envoy.transport_sockets.upstream_proxy_protocol
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
    config: {version: %s}
    transport_socket: %s
---`, name, port, version, inner)
}

const (
	rawInner = `{name: raw, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}`
	tlsInner = `{name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {}}}`
)

// startProxyRig runs a proxy whose clusters lead to peers with these ports.
func startProxyRig(t *testing.T, app, v1, v2, tls int) (*rig, proxyPorts) {
	p := proxyPorts{proxytest.Port(t), proxytest.Port(t), proxytest.Port(t), proxytest.Port(t), proxytest.Port(t)}
	extra := proxyListenerText("required", p.Required, "", proxyHCM) +
		proxyListenerText("optional", p.Optional, ", allow_requests_without_proxy_protocol: true, disallowed_versions: [V2]", proxyHCM) +
		proxyListenerText("tcp1", p.TCP1, "", tcpFilter("v1")) + proxyListenerText("tcp2", p.TCP2, "", tcpFilter("v2")) +
		proxyListenerText("tcptls", p.TCPTLS, "", tcpFilter("tls")) +
		proxyCluster("v1", v1, "V1", rawInner) + proxyCluster("v2", v2, "V2", rawInner) + proxyCluster("tls", tls, "V2", tlsInner)
	r := startRig(t, rigOptions{app: app, extra: strings.TrimSuffix(extra, "---")})
	proxytest.Until(t, "the listeners", func() bool {
		got, err := askWith(p.Required, v1Header, "/ready")
		return err == nil && strings.Contains(got, "200 OK")
	})
	return r, p
}

// askWith sends something before a request and returns all that comes back.
func askWith(port int, first, path string) (string, error) {
	c, err := dial(port)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "%sGET %s HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n", first, path); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// The address that a PROXY header gives is the client's for x-forwarded-for, policies and the access log.
func TestTheClientOfAProxyHeaderIsTheClientEverywhere(t *testing.T) {
	t.Parallel() // waits more than it works
	app := proxytest.StartApp(t, "app")
	app.Handle(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "xff=%s external=%s", r.Header.Get("x-forwarded-for"), r.Header.Get("x-envoy-external-address"))
	})
	r, p := startProxyRig(t, app.Port, app.Port, app.Port, app.Port)
	for _, tc := range []struct {
		name        string
		port        int
		first, path string
		want        string // of the answer; "": the connection is closed
		log         string
	}{
		{"a header", p.Required, v1Header, "/a", "xff=203.0.113.7 external=203.0.113.7", "/a 200 remote=203.0.113.7:4711 direct=127.0.0.1 local=198.51.100.1:443"},
		{"a client that is denied", p.Required, badHeader, "/b", "403 Forbidden", "/b 403 remote=203.0.113.66:4711 direct=127.0.0.1"},
		{"a balancer that is denied", p.Required, v1Header, "/direct", "403 Forbidden", "/direct 403 remote=203.0.113.7:4711 direct=127.0.0.1"},
		{"no header where it must be", p.Required, "", "/c", "", ""},
		{"a header that is none", p.Required, "PROXY TCP4 203.0.113.7 198.51.100.1 4711\r\n", "/c", "", ""},
		{"no header where it may be", p.Optional, "", "/d", "xff=127.0.0.1", "/d 200 remote=127.0.0.1:"},
		{"a header where it may be", p.Optional, v1Header, "/e", "xff=203.0.113.7", "/e 200 remote=203.0.113.7:4711"},
		{"a disallowed version is no HTTP either", p.Optional, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "/f", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := askWith(tc.port, tc.first, tc.path)
			if tc.want == "" {
				if strings.Contains(got, "200 OK") {
					t.Errorf("got %q, want no answer from the application", got)
				}
				return
			}
			if err != nil || !strings.Contains(got, tc.want) {
				t.Errorf("got %q (%v), want %q", got, err, tc.want)
			}
			proxytest.Until(t, "the access log to say "+tc.log, func() bool {
				b, _ := os.ReadFile(filepath.Join(r.dir, "access.log"))
				return bytes.Contains(b, []byte(tc.log))
			})
		})
	}
}

func TestCurlsProxyHeaderIsTaken(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("SKIPPED: curl is not installed (make deps)")
	}
	app := proxytest.StartApp(t, "app")
	app.Handle(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "xff=", r.Header.Get("x-forwarded-for")) })
	_, p := startProxyRig(t, app.Port, app.Port, app.Port, app.Port)
	out, err := exec.Command(curl, "-sS", "--max-time", "20", "--haproxy-protocol", fmt.Sprintf("http://127.0.0.1:%d/", p.Required)).CombinedOutput()
	if err != nil || string(out) != "xff=127.0.0.1" {
		t.Errorf("curl: %v: %s", err, out)
	}
}

// Every way in and every way out, between HAProxy in front and HAProxy and nginx behind.
func TestProxyHeadersBetweenHAProxyAndNginx(t *testing.T) {
	port := func() int { return proxytest.Port(t) }
	cert := filepath.Join(t.TempDir(), "peer.pem")
	ca := identitytest.NewCA(t, "peer")
	leaf := ca.Certificate(t, "spiffe://cluster.local/ns/default/sa/peer", identitytest.DNS("peer"))
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(cert, text, 0o600); err != nil {
		t.Fatal(err)
	}
	type behind struct {
		name       string
		plain, tls int
		start      func(b behind)
	}
	for _, b := range []behind{
		{"HAProxy", port(), port(), func(b behind) {
			startPeer(t, fmt.Sprintf(`
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend echo
  bind 127.0.0.1:%d accept-proxy
  bind 127.0.0.1:%d accept-proxy ssl crt %s
  http-request return status 200 content-type text/plain lf-string "%%[src]:%%[src_port] %%[dst]:%%[dst_port]"
`, b.plain, b.tls, cert), []int{b.plain, b.tls}, "haproxy", "-q", "-db", "-f")
		}},
		{"nginx", port(), port(), func(b behind) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			var temp strings.Builder
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				fmt.Fprintf(&temp, "%s_temp_path %s/%s; ", kind, dir, kind)
			}
			user := ""
			if os.Getuid() == 0 {
				user = "user root;"
			}
			startPeer(t, fmt.Sprintf(`%s daemon off; master_process off; pid %s/pid; error_log stderr crit; events {}
http { access_log off; %s
  server {
    listen 127.0.0.1:%d proxy_protocol; listen 127.0.0.1:%d proxy_protocol ssl;
    ssl_certificate %s; ssl_certificate_key %s;
    location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port"; }
  }
}`, user, dir, &temp, b.plain, b.tls, cert, cert), []int{b.plain, b.tls}, "nginx", "-e", "stderr", "-c")
		}},
	} {
		t.Run("to "+b.name, func(t *testing.T) {
			b.start(b)
			app := proxytest.StartApp(t, "app")
			_, p := startProxyRig(t, app.Port, b.plain, b.plain, b.tls)
			balancers := startBalancers(t, p)
			for _, in := range balancers {
				for _, out := range []struct {
					name, path string
					port       int
				}{
					{"HTTP, version 1", "/v1", in.http}, {"HTTP, version 2", "/v2", in.http},
					{"TCP, version 1", "/", in.tcp1}, {"TCP, version 2", "/", in.tcp2}, {"TCP, version 2 and TLS", "/", in.tcpTLS},
				} {
					t.Run(in.name+" in, "+out.name+" out", func(t *testing.T) {
						got, err := askWith(out.port, v1Header, out.path)
						if err != nil || !strings.HasSuffix(strings.TrimSpace(got), said) {
							t.Errorf("the peer was told %q (%v), want %q", got, err, said)
						}
					})
				}
			}
		})
	}
}

// balancer is one way in which HAProxy introduces clients, with a port for each listener of the rig.
type balancer struct {
	name                     string
	http, tcp1, tcp2, tcpTLS int
}

func startBalancers(t *testing.T, p proxyPorts) []balancer {
	t.Helper()
	var conf strings.Builder
	conf.WriteString("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n")
	var ports []int
	add := func(option string, to int) int {
		n := proxytest.Port(t)
		ports = append(ports, n)
		fmt.Fprintf(&conf, "listen l%d\n  bind 127.0.0.1:%d accept-proxy\n  server s 127.0.0.1:%d %s\n", n, n, to, option)
		return n
	}
	var out []balancer
	for _, o := range []struct{ name, option string }{
		{"version 1", "send-proxy"}, {"version 2", "send-proxy-v2"}, {"version 2 with TLVs and a checksum", "send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id"},
	} {
		out = append(out, balancer{o.name, add(o.option, p.Required), add(o.option, p.TCP1), add(o.option, p.TCP2), add(o.option, p.TCPTLS)})
	}
	startPeer(t, conf.String(), ports, "haproxy", "-q", "-db", "-f")
	return out
}

// Requests of two clients never share a connection that speaks for one of them.
func TestAClientsProxyHeaderIsNotUsedForAnother(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				line, err := br.ReadString('\n')
				for n := 1; err == nil; n++ {
					var req *http.Request
					if req, err = http.ReadRequest(br); err == nil {
						body := strings.TrimSpace(line) + " #" + strconv.Itoa(n)
						_, _ = io.Copy(io.Discard, req.Body)
						_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					}
				}
			}()
		}
	}()
	app := proxytest.StartApp(t, "app")
	up := ln.Addr().(*net.TCPAddr).Port
	_, p := startProxyRig(t, app.Port, up, up, up)
	open := func(header string) (net.Conn, *bufio.Reader) {
		c, err := dial(p.Required)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, header); err != nil {
			t.Fatal(err)
		}
		return c, bufio.NewReader(c)
	}
	other := strings.Replace(v1Header, saidBy, "203.0.113.8", 1)
	a, ra := open(v1Header)
	b, rb := open(other)
	for i := 1; i <= 3; i++ {
		for _, x := range []struct {
			c    net.Conn
			r    *bufio.Reader
			want string
		}{{a, ra, v1Header}, {b, rb, other}} {
			if _, err := io.WriteString(x.c, "GET /v1 HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(x.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if want := fmt.Sprintf("%s #%d", strings.TrimSpace(x.want), i); string(body) != want {
				t.Errorf("answer %q, want %q: its own connection, kept", body, want)
			}
		}
	}
}
