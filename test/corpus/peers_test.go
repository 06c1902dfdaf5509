package corpus

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// peer is another proxy with the smallest configuration that does what ours does: HTTP/1.1 from
// the client to a backend, one listener for each lane.
type peer struct {
	name    string
	find    []string // names and paths of the program
	version []string // arguments that make it print its version
	config  func(dir string, ls []*lane) string
	run     func(config string) []string
}

var peers = []*peer{
	{"nginx", []string{"nginx", "/usr/sbin/nginx"}, []string{"-v"}, nginxConfig,
		func(file string) []string { return []string{"-e", "stderr", "-c", file} }},
	{"haproxy", []string{"haproxy", "/usr/sbin/haproxy"}, []string{"-v"}, haproxyConfig,
		func(file string) []string { return []string{"-q", "-db", "-f", file} }},
	{"envoy", []string{"envoy", "../../.cache/envoy/bin/envoy"}, []string{"--version"}, envoyConfig,
		func(file string) []string {
			return []string{"-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "critical"}
		}},
}

// program is where the peer is; empty if it is not installed.
func (p *peer) program() string {
	for _, name := range p.find {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	return ""
}

var versionNumber = regexp.MustCompile(`\d+\.\d+\.\d+`)

func (p *peer) versionOf(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(p.program(), p.version...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", p.name, err, out)
	}
	return versionNumber.FindString(string(out))
}

// start runs the peer until the test ends.
func (p *peer) start(t *testing.T) []*lane {
	t.Helper()
	var ls []*lane
	for range lanes {
		ls = append(ls, &lane{startBackend(t), map[string]int{"plain": proxytest.Port(t)}})
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // nginx drops its rights before it uses what is in it
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(p.config(dir, ls)), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(p.program(), p.run(file)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // a group of its own
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", p.name, log.String())
		}
	})
	for _, l := range ls {
		proxytest.Until(t, p.name+" to listen", func() bool {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.ports["plain"]))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	return ls
}

func nginxConfig(dir string, ls []*lane) string {
	var b strings.Builder
	if os.Getuid() == 0 {
		b.WriteString("user root;\n")
	}
	fmt.Fprintf(&b, "daemon off;\nmaster_process off;\npid %s/pid;\nerror_log stderr crit;\nevents {}\nhttp {\n  access_log off;\n", dir)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, "  %s_temp_path %s/%s;\n", kind, dir, kind)
	}
	b.WriteString("  client_header_timeout 1s;\n  client_body_timeout 1s;\n  lingering_close off;\n")
	for _, l := range ls {
		fmt.Fprintf(&b, "  server { listen 127.0.0.1:%d; location / { proxy_pass http://127.0.0.1:%d; proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection \"\"; } }\n",
			l.ports["plain"], l.backend.port())
	}
	return b.String() + "}\n"
}

func haproxyConfig(_ string, ls []*lane) string {
	var b strings.Builder
	b.WriteString("global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 3s\n  timeout http-request 1s\n")
	for i, l := range ls {
		fmt.Fprintf(&b, "listen l%d\n  bind 127.0.0.1:%d\n  server s 127.0.0.1:%d\n", i, l.ports["plain"], l.backend.port())
	}
	return b.String()
}

// envoyConfig is what weft-proxy gets for its listener "plain", as static resources.
func envoyConfig(_ string, ls []*lane) string {
	var listeners, clusters []string
	for i, l := range ls {
		listeners = append(listeners, withoutType(listenerConfig("plain", i, l.ports["plain"])))
		clusters = append(clusters, withoutType(clusterConfig(i, l.backend.port())))
	}
	return fmt.Sprintf("static_resources: {\n  listeners: [%s],\n  clusters: [%s]}\n", strings.Join(listeners, ","), strings.Join(clusters, ","))
}

func withoutType(yaml string) string {
	_, rest, _ := strings.Cut(yaml, ", ")
	return "{" + rest
}
