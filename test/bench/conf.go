package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
)

//go:embed config
var configs embed.FS

// conf fills a configuration template; one for each process.
type conf struct {
	Kind, Role            string // role: one, or a and b, the ends of an mTLS pair
	Listen, Upstream      int    // ports
	Admin                 int    // port of weft-proxy's, Envoy's and Caddy's admin listener
	Workers               int    // threads; 0: weft-proxy's own choice
	Dir                   string
	Cert, Key, Pem, CA    string // files
	Account, Peer, PeerID string // own name, the other end's name and SPIFFE ID
	Host                  string
	Services              []string // short names of all services; the benchmark's is the first
	Root                  bool     // we are root
	NginxStream           string   // file of nginx' stream module
	spare                 [2]int   // ports for listeners that capture would redirect to
	Many                  bool     // as many connections as the descriptors suffice for
	Bytes                 bool     // hand over bytes: no HTTP
}

// DownH2 tells that this process takes HTTP/2.
func (c *conf) DownH2() bool { return downH2(c.Kind) }

// UpH2 tells that this process speaks HTTP/2 upstream.
func (c *conf) UpH2() bool { return upH2(c.Kind) }

// Others are the services that get no traffic.
func (c *conf) Others() []string { return c.Services[1:] }

// Descriptors is the limit of open files.
func (c *conf) Descriptors() int { return descriptors() }

// usualConns is what HAProxy and nginx make room for unless there are many.
const usualConns = 4000

// Events are the connections that nginx makes room for, on both sides.
func (c *conf) Events() int {
	if c.Many {
		return 2 * descriptors()
	}
	return 2 * usualConns
}

// MaxConns leaves HAProxy the descriptors that it wants besides two for each connection.
func (c *conf) MaxConns() int {
	if c.Many {
		return descriptors()/2 - 50
	}
	return min(usualConns, descriptors()/2-50)
}

// descriptors is how many files this program and what it starts may have open each.
func descriptors() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Max, 1<<20))
}

// fill completes what role, ports and account do not say.
func (c *conf) fill(e *env, kind string) {
	c.Kind, c.Dir, c.Host, c.Root = kind, e.dir, benchHost, os.Getuid() == 0
	c.PeerID = spiffeID(c.Peer)
	base := filepath.Join(e.dir, c.Account)
	c.Cert, c.Key, c.Pem, c.CA = base+".crt", base+".key", base+".pem", filepath.Join(e.dir, "root.crt")
	c.Services, c.NginxStream = services(c.Role), nginxStream()
}

// services are the names in the outbound route table: a mesh has more than one.
func services(role string) []string {
	out := []string{"bench"}
	for i := 0; role != "b" && i < 99; i++ {
		out = append(out, fmt.Sprintf("service-%d", i))
	}
	return out
}

func render(name string, data any) ([]byte, error) {
	t, err := template.New(name).ParseFS(configs, "config/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, data)
	return b.Bytes(), err
}

// nginxStream finds nginx' module for TCP: "" if it is not installed.
func nginxStream() string {
	const file = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// commandLine is what was typed to start a process, without the run's own paths.
func (c *conf) commandLine(argv, env []string) string {
	s := strings.Join(append(env, argv...), " ")
	s = strings.ReplaceAll(s, c.Dir, "DIR")
	if i := strings.LastIndexByte(argv[0], '/'); i >= 0 {
		s = strings.ReplaceAll(s, argv[0][:i+1], "")
	}
	return s
}
