package protocol

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// meshCluster leads over mTLS to a listener of the same proxy, so that both ends of the mTLS are measured.
func meshCluster(name string, port int, http string) string {
	opts := ""
	if http != "" {
		opts = `
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {` + http + `: {}}`
	}
	return fmt.Sprintf(`
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: %s
type: STATIC
connect_timeout: 20s
load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}%s
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    common_tls_context: %s
---`, name, port, opts, meshContext)
}

const meshContext = `{alpn_protocols: [istio], tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}], validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}}`

const meshSocket = `
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context: ` + meshContext

// listenerText is a listener with one chain.
func listenerText(name string, port int, filters, socket string) string {
	return fmt.Sprintf(`
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: %s
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
traffic_direction: INBOUND
filter_chains:
- filters:%s%s
---`, name, port, filters, socket)
}

func httpFilterTo(one, two string) string {
	return fmt.Sprintf(`
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      route_config: {name: local, virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /h2/}, route: {cluster: %s, timeout: 0s}}, {match: {prefix: /}, route: {cluster: %s, timeout: 0s}}]}]}
      http_filters:
      - {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`, two, one)
}

// startTCP serves a TCP application: a client that sends G is sent much, one that sends P is read slowly.
func (p *pressed) startTCP(t *testing.T) int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				first := make([]byte, 1)
				if _, err := io.ReadFull(c, first); err != nil {
					return
				}
				if first[0] == 'P' {
					_, _ = slowlyCounted(c, &p.took)
					return
				}
				buf := make([]byte, 64<<10)
				for range offered / len(buf) {
					n, err := c.Write(buf)
					p.sent.Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// The same over TLS to the client, between two sidecars, and without HTTP.
func TestASlowReaderDoesNotMakeTheProxyGrowOverTLSAndTCP(t *testing.T) {
	t.Parallel() // waits more than it works
	app := proxytest.StartApp(t, "app")
	tcp := &pressed{}
	tcpApp := tcp.startTCP(t)
	port := func() int { return proxytest.Port(t) }
	front, back, tcpPlain, tcpFront, tcpBack := port(), port(), port(), port(), port()
	extra := listenerText("front", front, httpFilterTo("mesh1", "mesh2"), "") + listenerText("back", back, httpFilterTo("h1", "h2"), meshSocket) +
		listenerText("tcpplain", tcpPlain, tcpFilter("tcpapp"), "") + listenerText("tcpfront", tcpFront, tcpFilter("meshtcp"), "") +
		listenerText("tcpback", tcpBack, tcpFilter("tcpapp"), meshSocket) +
		meshCluster("mesh1", back, "http_protocol_options") + meshCluster("mesh2", back, "http2_protocol_options") + meshCluster("meshtcp", tcpBack, "") +
		fmt.Sprintf(`
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: tcpapp
type: STATIC
connect_timeout: 20s
load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
`, tcpApp)
	r := startRig(t, rigOptions{app: app.Port, extra: extra})
	mesh, edge := &rig{t: t, plain: front}, &rig{t: t, plain: r.tls, tls: r.tls}
	proxytest.Until(t, "the listeners", func() bool {
		code, _, _, err := proxytest.TryCall("GET", front, "/direct")
		return err == nil && code == 200
	})
	time.Sleep(2500 * time.Millisecond) // as above
	overTLS := func(alpn string) (net.Conn, error) {
		c, err := r.dialTLS(alpn)
		if err == nil {
			smallReads(c)
		}
		return c, err
	}
	raw := func(port int, first string, use func(net.Conn) (int, error)) (int, error) {
		c, err := dial(port)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		smallReads(c)
		if _, err := io.WriteString(c, first); err != nil {
			return 0, err
		}
		return use(c)
	}
	read := func(c net.Conn) (int, error) { return slowly(c) }
	write := func(c net.Conn) (int, error) { return push(c, c.Write) }
	tlsH1 := func(use func(net.Conn, string) (int, error), path string) (int, error) {
		c, err := overTLS("http/1.1")
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return use(c, path)
	}
	secure, pair := fmt.Sprintf("https://127.0.0.1:%d", r.tls), fmt.Sprintf("http://127.0.0.1:%d", front)
	for _, tc := range []struct {
		name     string
		warm     string
		h2       bool
		down, up func() (int, error)
	}{
		{"TLS, HTTP/1 to HTTP/1", secure + "/", false, func() (int, error) { return tlsH1(downOn, "/") }, func() (int, error) { return tlsH1(upOn, "/") }},
		{"TLS, HTTP/1 to HTTP/2", secure + "/h2/", false, func() (int, error) { return tlsH1(downOn, "/h2/") }, func() (int, error) { return tlsH1(upOn, "/h2/") }},
		{"TLS, HTTP/2 to HTTP/1", secure + "/", true, func() (int, error) { return downH2(edge, "/") }, func() (int, error) { return upH2(edge, "/") }},
		{"TLS, HTTP/2 to HTTP/2", secure + "/h2/", true, func() (int, error) { return downH2(edge, "/h2/") }, func() (int, error) { return upH2(edge, "/h2/") }},
		{"mTLS pair, HTTP/1 throughout", pair + "/", false, func() (int, error) { return downH1(mesh, "/") }, func() (int, error) { return upH1(mesh, "/") }},
		{"mTLS pair, HTTP/1 to HTTP/2", pair + "/h2/", false, func() (int, error) { return downH1(mesh, "/h2/") }, func() (int, error) { return upH1(mesh, "/h2/") }},
		{"mTLS pair, HTTP/2 to HTTP/1", pair + "/", true, func() (int, error) { return downH2(mesh, "/") }, func() (int, error) { return upH2(mesh, "/") }},
		{"mTLS pair, HTTP/2 throughout", pair + "/h2/", true, func() (int, error) { return downH2(mesh, "/h2/") }, func() (int, error) { return upH2(mesh, "/h2/") }},
		{"TCP", "", false, func() (int, error) { return raw(tcpPlain, "G", read) }, func() (int, error) { return raw(tcpPlain, "P", write) }},
		{"TCP, mTLS pair", "", false, func() (int, error) { return raw(tcpFront, "G", read) }, func() (int, error) { return raw(tcpFront, "P", write) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tcp
			if tc.warm == "" {
				tcp.sent.Store(0)
				tcp.took.Store(0)
			} else {
				warm(t, app, tc.warm, tc.h2)
				p = &pressed{}
				app.Handle(p.ServeHTTP)
			}
			p.press(t, r, tc.down, tc.up)
		})
	}
}
