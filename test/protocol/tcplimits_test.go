package protocol

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// Idle time and longest duration hold for connections whose bytes the kernel moves, too.
func TestLimitsOfSplicedConnections(t *testing.T) {
	t.Parallel() // waits more than it works
	const idle, longest = 3 * time.Second, 8 * time.Second
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // echoes, and passes the client's end on
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	app := proxytest.StartApp(t, "app")
	port := proxytest.Port(t)
	filter := fmt.Sprintf(`
  - name: tcp
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: x
      cluster: echo
      idle_timeout: %s
      max_downstream_connection_duration: %s
      access_log:
      - name: envoy.access_loggers.file
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
          path: /dev/stdout
          log_format: {text_format_source: {inline_string: "tcp in=%%BYTES_RECEIVED%% out=%%BYTES_SENT%% flags=%%RESPONSE_FLAGS%% why=%%CONNECTION_TERMINATION_DETAILS%%\n"}}`, idle, longest)
	r := startRig(t, rigOptions{app: app.Port, extra: listenerText("tcp", port, filter, "") + fmt.Sprintf(`
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: echo
type: STATIC
connect_timeout: 20s
load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
`, ln.Addr().(*net.TCPAddr).Port)})
	block := make([]byte, 1<<20)
	for _, tc := range []struct {
		name     string
		run      func(c net.Conn, from time.Time) // until it is to be quiet
		least    time.Duration
		atMost   time.Duration
		log      string
		complete bool // the connection ends in order
	}{
		{"bulk, then silence", func(c net.Conn, _ time.Time) {
			for range 8 {
				if _, err := c.Write(block); err != nil {
					t.Errorf("write: %v", err)
				}
			}
		}, idle, longest, fmt.Sprintf("tcp in=%d out=%d flags=- why=tcp_session_idle_timeout", 8<<20, 8<<20), false},
		{"bulk for ever", func(c net.Conn, from time.Time) {
			for time.Since(from) < 2*longest+10*time.Second {
				if _, err := c.Write(block); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Error("it went on for more than twice its time")
		}, longest - 100*time.Millisecond, 2 * longest, "flags=DT why=max_connection_duration_reached", false},
		{"bulk and the end of one side", func(c net.Conn, _ time.Time) {
			for range 8 {
				if _, err := c.Write(block); err != nil {
					t.Errorf("write: %v", err)
				}
			}
			_ = c.(*net.TCPConn).CloseWrite()
		}, 0, idle, fmt.Sprintf("tcp in=%d out=%d flags=- why=-", 8<<20, 8<<20), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c net.Conn
			proxytest.Until(t, "the listener", func() bool {
				var err error
				c, err = dial(port)
				return err == nil
			})
			defer c.Close()
			from := time.Now()
			var wrote time.Time
			quiet := make(chan struct{})
			go func() {
				defer close(quiet)
				tc.run(c, from)
				wrote = time.Now()
			}()
			n, err := io.Copy(io.Discard, c)
			took := time.Since(from)
			<-quiet
			if tc.complete && (err != nil || n != 8<<20) {
				t.Errorf("%d bytes came back: %v", n, err)
			}
			if tc.least == idle {
				took = time.Since(wrote)
			}
			if took < tc.least-200*time.Millisecond || took > tc.atMost+10*time.Second {
				t.Errorf("ended after %v, want %v", took, tc.least)
			}
			proxytest.Until(t, "the access log to say "+tc.log, func() bool {
				b, _ := os.ReadFile(filepath.Join(r.dir, "access.log"))
				return bytes.Contains(b, []byte(tc.log))
			})
		})
	}
}
