package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// buildWeft builds weft-proxy from this tree.
func buildWeft(dir string) (string, error) {
	bin := filepath.Join(dir, "weft-proxy")
	return bin, build("", bin)
}

// build builds the weft-proxy of a tree ("" is the current directory's) as `make build` does: by its profile, unless WEFT_PGO is off.
func build(tree, bin string) error {
	const program = "weft.mesh/weft/cmd/weft-proxy"
	find := exec.Command("go", "list", "-f", "{{.Dir}}", program)
	find.Dir = tree
	dir, err := find.Output()
	if err != nil {
		return fmt.Errorf("find weft-proxy: %w", err)
	}
	args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-tags", "grpcnotrace", "-o", bin}
	if profile := filepath.Join(strings.TrimSpace(string(dir)), "release.pgo"); os.Getenv("WEFT_PGO") != "off" && fileExists(profile) { // older trees have none
		args = append(args, "-pgo", profile)
	}
	cmd := exec.Command("go", append(args, program)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build weft-proxy: %w\n%s", err, out)
	}
	return nil
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// weftArgs gives the control plane the node's resources, and the node what it joins with.
func weftArgs(e *env, bin string, c *conf, file string) ([]string, error) {
	rs, err := translated(c)
	if err != nil {
		return nil, fmt.Errorf("translate: %w", err)
	}
	node := filepath.Base(file)
	e.mesh.serve(node, rs)
	token, err := e.mesh.token(e.dir, node, c.Account)
	if err != nil {
		return nil, err
	}
	argv := []string{
		bin, "sidecar", "--id", node, "--namespace", "default", "--ip", loopback, "--service-account", c.Account,
		"--label", "app=" + c.Account, "--label", "version=v1", "--workload", c.Account, "--cluster", "Kubernetes",
		"--xds", e.mesh.addr, "--ca-root", e.mesh.roots, "--token-file", token, "--state-dir", filepath.Join(e.dir, node),
		"--trust-domain", trustDomain, "--domain", "cluster.local",
		"--admin-port", strconv.Itoa(c.Admin), "--status-port", "0", "--ready-port", "0", "--metrics-port", "0", "--drain-duration", "10ms",
	}
	if c.Workers > 0 {
		argv = append(argv, "--concurrency", strconv.Itoa(c.Workers))
	}
	return argv, nil
}

var (
	mallocs = regexp.MustCompile(`(?m)^# Mallocs = (\d+)$`)
	client  = http.Client{Timeout: 10 * time.Second}
	// profiles take as long as they were asked to.
	profileClient = http.Client{Timeout: time.Minute}
)

// allocations is the number of objects that a weft-proxy has allocated so far, from the
// runtime's figures at the end of a heap profile.
func allocations(admin string) (int64, error) {
	resp, err := client.Get("http://" + admin + "/debug/pprof/allocs?debug=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, resp.Body); err != nil {
		return 0, err
	}
	m := mallocs.FindSubmatch(b.Bytes())
	if m == nil {
		return 0, fmt.Errorf("no figure in the heap profile of %s (status %s)", admin, resp.Status)
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}

// allocMeter counts the allocations of all processes of a peer between start
// and stop, less what asking costs.
type allocMeter struct {
	r     *running
	begin int64
	cost  int64 // of asking once
}

// newAllocMeter returns nil for programs that cannot be asked.
func newAllocMeter(r *running) *allocMeter {
	if len(r.admin) == 0 {
		return nil
	}
	m := &allocMeter{r: r}
	m.sum() // first time: connection, templates
	a, b := m.sum(), m.sum()
	m.cost = b - a
	return m
}

func (m *allocMeter) sum() (n int64) {
	for _, a := range m.r.admin {
		v, err := allocations(a)
		if err != nil {
			return 0
		}
		n += v
	}
	return n
}

func (m *allocMeter) start() {
	if m != nil {
		m.begin = m.sum()
	}
}

// perRequest is -1 if unknown.
func (m *allocMeter) perRequest(requests int) float64 {
	if m == nil || m.begin == 0 || requests == 0 {
		return -1
	}
	end := m.sum()
	if end == 0 {
		return -1
	}
	return max(0, float64(end-m.begin-m.cost)/float64(requests))
}
