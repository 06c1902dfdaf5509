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

// peer is another proxy with the smallest configuration that does what ours does: the same listeners for
// each lane, in front of the same backend.
type peer struct {
	name    string
	find    []string // names and paths of the program
	version []string // arguments that make it print its version
	config  func(dir string, ls []*lane) string
	run     func(config string) []string
	only1   bool // has no HTTP/2 to upstreams
}

// takes tells whether the peer has what the case is about.
func (p *peer) takes(c *testCase) bool { return c.answer == nil || !p.only1 }

var peers = []*peer{
	{"nginx", []string{"nginx", "/usr/sbin/nginx"}, []string{"-v"}, nginxConfig,
		func(file string) []string { return []string{"-e", "stderr", "-c", file} }, true},
	{"haproxy", []string{"haproxy", "/usr/sbin/haproxy"}, []string{"-v"}, haproxyConfig,
		func(file string) []string { return []string{"-q", "-db", "-f", file} }, false},
	{"envoy", []string{"envoy", "../../.cache/envoy/bin/envoy"}, []string{"--version"}, envoyConfig,
		func(file string) []string {
			return []string{"-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "critical"}
		}, false},
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
		l := &lane{startBackend(t), map[string]int{}}
		for _, kind := range listeners {
			l.ports[kind] = proxytest.Port(t)
		}
		ls = append(ls, l)
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
		for _, port := range l.ports {
			proxytest.Until(t, p.name+" to listen", func() bool {
				c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err == nil {
					c.Close()
				}
				return err == nil
			})
		}
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
		for _, kind := range listeners {
			more := ""
			if kind == "guarded" || kind == "strict" {
				more = "location /admin { return 403; } merge_slashes " + map[string]string{"guarded": "off", "strict": "on"}[kind] + "; "
			}
			http2 := ""
			if kind == "h2" {
				http2 = " http2"
			}
			fmt.Fprintf(&b, "  server { listen 127.0.0.1:%d%s; %slocation / { proxy_pass http://127.0.0.1:%d; proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection \"\"; } }\n",
				l.ports[kind], http2, more, l.backend.port())
		}
	}
	return b.String() + "}\n"
}

// haproxyNormal is what HAProxy has that comes closest to Envoy's normalisation, and then the policy.
const haproxyNormal = `  http-request normalize-uri path-strip-dot
  http-request normalize-uri path-strip-dotdot full
  http-request normalize-uri percent-decode-unreserved
  http-request deny if { path_beg /admin }
`

func haproxyConfig(_ string, ls []*lane) string {
	var b strings.Builder
	b.WriteString("global\n  nbthread 1\n  expose-experimental-directives\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 3s\n  timeout http-request 1s\n")
	for i, l := range ls {
		for _, kind := range listeners {
			proto, more, up := "", "", ""
			switch kind {
			case "h2":
				proto = " proto h2"
			case "up2":
				up = " proto h2"
			case "guarded":
				more = haproxyNormal
			case "strict":
				more = "  http-request normalize-uri path-merge-slashes\n" + haproxyNormal
			}
			fmt.Fprintf(&b, "listen %s%d\n  bind 127.0.0.1:%d%s\n%s  server s 127.0.0.1:%d%s\n", kind, i, l.ports[kind], proto, more, l.backend.port(), up)
		}
	}
	return b.String()
}

// envoyConfig is what weft-proxy gets, as static resources.
func envoyConfig(_ string, ls []*lane) string {
	var listeners, clusters []string
	for i, l := range ls {
		for kind, port := range l.ports {
			listeners = append(listeners, withoutType(listenerConfig(kind, i, port)))
		}
		for _, c := range clusterConfigs(i, l.backend.port()) {
			clusters = append(clusters, withoutType(c))
		}
	}
	return fmt.Sprintf("static_resources: {\n  listeners: [%s],\n  clusters: [%s]}\n", strings.Join(listeners, ","), strings.Join(clusters, ","))
}

func withoutType(yaml string) string {
	_, rest, _ := strings.Cut(yaml, ", ")
	return "{" + rest
}
