package testbed

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed coredns.yaml
var corednsManifest []byte

// UpSettings are the choices of a cluster.
type UpSettings struct {
	Nodes     int    // 1 to 8; default 2
	ProxyMode string // of kube-proxy: nftables (default) or iptables
}

// Up starts a cluster and returns when its nodes and its DNS are ready.
func (b *Bed) Up(ctx context.Context, s UpSettings) error {
	if err := b.mayStart(&s); err != nil {
		return err
	}
	start := time.Now()
	if err := b.startNodes(s); err != nil {
		return errors.Join(err, b.Down())
	}
	if err := b.waitUp(ctx, s, start); err != nil {
		return fmt.Errorf("%w\n%s(kept for a look: logs below %s; `down` removes it)", err, b.tails(s.Nodes), b.Run())
	}
	return nil
}

func (b *Bed) mayStart(s *UpSettings) error {
	if err := root("start a cluster"); err != nil {
		return err
	}
	if s.Nodes == 0 {
		s.Nodes = 2
	}
	if s.ProxyMode == "" {
		s.ProxyMode = "nftables"
	}
	if s.Nodes < 1 || s.Nodes > maxNodes {
		return fmt.Errorf("nodes: %d: want 1 to 8", s.Nodes)
	}
	if s.ProxyMode != "nftables" && s.ProxyMode != "iptables" {
		return fmt.Errorf("proxy mode %q: want nftables or iptables", s.ProxyMode)
	}
	if err := b.Missing(); err != nil {
		return err
	}
	for _, covered := range []string{"/run/", "/var/log/", "/opt/"} {
		if strings.HasPrefix(b.Dir+"/", covered) {
			return fmt.Errorf("%s: nodes have a %s of their own, so the checkout cannot be there", b.Dir, covered)
		}
	}
	if _, err := os.Stat(b.Run()); err == nil || len(b.nodeProcesses()) > 0 {
		return fmt.Errorf("a cluster is up, or one that crashed left something in %s: `go run ./test/kubernetes/cluster down` first", b.Run())
	}
	return nil
}

func (b *Bed) startNodes(s UpSettings) error {
	a, err := controlPKI(filepath.Join(b.Run(), "pki"), Node(1).IP(), apiURL())
	if err != nil {
		return err
	}
	if err := makeBridge(); err != nil {
		return err
	}
	for n := Node(1); int(n) <= s.Nodes; n++ {
		if err := a.nodePKI(n); err != nil {
			return err
		}
		pid, err := b.startNode(n, s)
		if err != nil {
			return err
		}
		if err := connect(n, pid); err != nil {
			return err
		}
	}
	return errors.Join(route(ServiceRange, Node(1).IP()), route(BalancerNet, Node(1).IP()))
}

// startNode starts a node's pid 1 in new namespaces, in a session of its own: it outlives this process.
func (b *Bed) startNode(n Node, s UpSettings) (pid int, err error) {
	logs := filepath.Join(b.Run(), n.String(), "log")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(logs, "node.log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	c := exec.Command(b.Bin("testbed"), "node", fmt.Sprint(int(n)), fmt.Sprint(s.Nodes), s.ProxyMode)
	c.Dir = b.Module
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("%s: start: %w", n, err)
	}
	pid = c.Process.Pid
	go c.Wait() // no zombie while this process goes on; the node ends when it is killed
	return pid, nil
}

// waitUp waits for the API server, DNS and nodes, and says when each was there.
func (b *Bed) waitUp(ctx context.Context, s UpSettings, start time.Time) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("the cluster is not up after 3 minutes"))
	defer cancel()
	api, err := NewClient(apiURL(), filepath.Join(b.Run(), "pki"))
	if err != nil {
		return err
	}
	if err := api.Ready(ctx); err != nil {
		return err
	}
	b.say("API server ready after %.1f s", time.Since(start).Seconds())
	if err := b.Kubectl(ctx, corednsManifest, "apply", "-f", "-"); err != nil {
		return err
	}
	for n := Node(1); int(n) <= s.Nodes; n++ {
		if err := api.until(ctx, func() error { return nodeReady(ctx, api, n) }); err != nil {
			return err
		}
		b.say("%s ready after %.1f s", n, time.Since(start).Seconds())
	}
	if err := b.Kubectl(ctx, nil, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s"); err != nil {
		return err
	}
	b.say("DNS ready after %.1f s", time.Since(start).Seconds())
	return nil
}

func nodeReady(ctx context.Context, api *Client, n Node) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := api.Do(ctx, "GET", "/api/v1/nodes/"+n.String(), "", nil, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("%s: not ready: %s", n, c.Message)
		}
	}
	return fmt.Errorf("%s: no Ready condition yet", n)
}

// Kubectl runs kubectl as the administrator; what it writes is part of the error.
func (b *Bed) Kubectl(ctx context.Context, stdin []byte, args ...string) error {
	c := exec.CommandContext(ctx, b.Bin("kubectl"), args...)
	c.Env = b.Environment()
	c.Stdin = bytes.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// tails are the last lines of the nodes' own logs, for an error.
func (b *Bed) tails(nodes int) string {
	var out strings.Builder
	for n := 1; n <= nodes; n++ {
		text, _ := os.ReadFile(filepath.Join(b.Run(), Node(n).String(), "log", "node.log"))
		lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(l string) bool { return l == "" })
		for _, l := range lines[max(0, len(lines)-5):] {
			fmt.Fprintf(&out, "%s: %s\n", Node(n), l)
		}
	}
	return out.String()
}
