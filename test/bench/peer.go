package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// peer is one proxy program, with a number of workers.
type peer struct {
	name    string
	program string // name without the number of workers
	config  string // template; "" takes nothing
	workers int    // 0: the program's own choice
	// cannot says for a kind why the program is not measured.
	cannot map[string]string
	// find returns the program, or says why there is none.
	find func() (string, error)
	// version prints a line.
	version func(bin string) string
	// argv runs the program; file is the configuration.
	argv func(e *env, bin string, c *conf, file string) ([]string, error)
	env  func(c *conf) []string
	// count is the program's own count of requests, if it has one.
	count counter
	// weft tells that it has our admin pages and takes its identity from our mesh.
	weft bool
	// floor tells that it hands over bytes and does nothing that verify asks of a proxy.
	floor bool
}

const (
	directName = "direct"
	noTCP      = "Caddy proxies HTTP only"
	relayName  = "relay"
)

var peers = []*peer{
	{name: "weft", argv: weftArgs, weft: true, count: countWeft,
		version: func(bin string) string { return firstLine(bin, "version") + ", tree " + treeVersion() }},
	{
		name: "haproxy", config: "haproxy.cfg", workers: 1, find: lookFor("haproxy"), count: countHAProxy,
		version: func(bin string) string { return firstLine(bin, "-v") },
		argv: func(_ *env, bin string, _ *conf, file string) ([]string, error) {
			return []string{bin, "-db", "-f", file}, nil
		},
	},
	// HAProxy that only hands bytes over, with mutual TLS between a pair: what no proxy of its kind can go below, whatever it does with HTTP.
	{
		name: relayName, config: "haproxy.cfg", workers: 1, find: lookFor("haproxy"), floor: true,
		version: func(bin string) string { return firstLine(bin, "-v") + ", mode tcp" },
		argv: func(_ *env, bin string, _ *conf, file string) ([]string, error) {
			return []string{bin, "-db", "-f", file}, nil
		},
	},
	{
		name: "nginx", config: "nginx.conf", workers: 1, find: lookFor("nginx"), cannot: nginxCannot(),
		version: func(bin string) string { return firstLine(bin, "-v") },
		argv: func(_ *env, bin string, c *conf, file string) ([]string, error) {
			return []string{bin, "-p", c.Dir, "-e", "stderr", "-c", file}, nil
		},
	},
	{
		name: "envoy", config: "envoy.yaml", workers: 1, find: lookFor("envoy"), count: countEnvoy,
		version: func(bin string) string {
			return strings.Replace(firstLine(bin, "--version"), filepath.Dir(bin)+"/", "", 1)
		},
		argv: func(_ *env, bin string, c *conf, file string) ([]string, error) {
			return []string{bin, "-c", file, "--concurrency", strconv.Itoa(c.Workers), "--disable-hot-restart", "-l", "warning"}, nil
		},
	},
	{
		name: "caddy", config: "caddy.json", workers: 1, find: lookFor("caddy"), count: countCaddy,
		cannot:  map[string]string{kindTCP: noTCP},
		version: func(bin string) string { return "Caddy " + moduleVersion(bin) },
		argv: func(_ *env, bin string, _ *conf, file string) ([]string, error) {
			return []string{bin, "run", "--config", file}, nil
		},
		env: func(c *conf) []string {
			return []string{"GOMAXPROCS=" + strconv.Itoa(c.Workers), "HOME=" + c.Dir, "OTEL_TRACES_EXPORTER=none", "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01"}
		},
	},
	// No proxy: the latency that is not a proxy's.
	{name: directName, find: func() (string, error) { return directName, nil }, version: func(string) string { return "no proxy" },
		cannot: map[string]string{kindTLS: "the backend speaks no TLS", kindH1H2: "the backend's HTTP/2 port takes no HTTP/1.1"}},
}

func nginxCannot() map[string]string {
	out := map[string]string{kindH1H2: "nginx sends HTTP/1.1 requests to HTTP/1.1 upstreams only"}
	if nginxStream() == "" {
		out[kindTCP] = "nginx' stream module is not installed (make deps)"
	}
	return out
}

func peerNames() []string {
	var out []string
	for _, p := range peers {
		out = append(out, p.name)
	}
	return out
}

// findPeer takes "haproxy", and "haproxy@2" for it with two workers; "weft@1" is weft-proxy on one thread.
func findPeer(s string) (*peer, error) {
	name, n, variant := strings.Cut(s, "@")
	for _, p := range peers {
		if p.name != name {
			continue
		}
		out := *p
		out.program = name
		if !variant {
			return &out, nil
		}
		w, err := strconv.Atoi(n)
		if err != nil || w < 1 || w > 64 || name == directName {
			return nil, fmt.Errorf("-peers: %q: want a number of workers from 1 to 64 after the @", s)
		}
		out.name, out.workers = s, w
		return &out, nil
	}
	return nil, fmt.Errorf("-peers: unknown %q; want %s, or all; with @2 on two workers", s, strings.Join(peerNames(), ", "))
}

// variant tells that it is a program with another number of workers than it has by default.
func (p *peer) variant() bool { return p.name != p.program }

// basePeer is another build of weft-proxy, to compare with in the same rounds.
func basePeer() *peer {
	b := *peers[0]
	b.name, b.program, b.version = "base", "base", func(bin string) string { return firstLine(bin, "version") }
	return &b
}

// lookFor searches the checkout's cache, PATH and where Debian keeps servers.
func lookFor(name string) func() (string, error) {
	return func() (string, error) {
		for _, file := range []string{filepath.Join(checkout(), ".cache", name, "bin", name), name, "/usr/sbin/" + name} {
			if bin, err := exec.LookPath(file); err == nil {
				return filepath.Abs(bin)
			}
		}
		return "", fmt.Errorf("%s is not installed (test/deps bench installs it)", name)
	}
}

// checkout is the folder with our go.mod, from which programs are often run.
func checkout() string {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	return "."
}

// moduleVersion is that of a Go program's main module, which go install records.
func moduleVersion(bin string) string {
	info, err := buildinfo.ReadFile(bin)
	if err != nil || info.Main.Version == "" {
		return firstLine(bin, "version") // a distribution's package
	}
	return info.Main.Version + " (" + info.GoVersion + ")"
}

// firstLine is the first line that a command prints.
func firstLine(argv ...string) string {
	out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
