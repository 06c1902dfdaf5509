// Command cluster is a Kubernetes cluster on this machine, for tests: see
// package testbed.
//
//	go run ./test/kubernetes/cluster build              Kubernetes, etcd, CoreDNS (once, minutes)
//	go run ./test/kubernetes/cluster peers              Prometheus, Istio's istioctl, control plane and agent, Kiali: what tests run (once, minutes)
//	go run ./test/kubernetes/cluster up [-nodes 2]      start; prints what to export for kubectl
//	go run ./test/kubernetes/cluster images             build the project's images and load them
//	go run ./test/kubernetes/cluster load FILE…         load image archives
//	go run ./test/kubernetes/cluster kubectl ARGS…      kubectl as administrator
//	go run ./test/kubernetes/cluster in N COMMAND…      run a command on node N
//	go run ./test/kubernetes/cluster down               stop, and remove what a crash left
//	go run ./test/kubernetes/cluster run -- COMMAND…    all of it: build, up, images, COMMAND, down
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"weft.mesh/weft/test/kubernetes/testbed"
)

const usage = "usage: cluster build | peers | up [-nodes N] [-proxy-mode nftables|iptables] | images | load FILE… | kubectl ARGS… | in NODE COMMAND… | down | run [-keep] -- COMMAND…"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	bed, err := testbed.Find(os.Stdout)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return errors.New(usage)
	}
	command, args := args[0], args[1:]
	switch command {
	case "build":
		return errors.Join(bed.Packages(ctx), bed.Build(ctx))
	case "peers":
		return bed.Peers(ctx)
	case "up":
		return up(ctx, bed, args)
	case "images":
		return images(ctx, bed)
	case "load":
		return bed.Load(ctx, args...)
	case "kubectl":
		return attached(exec.CommandContext(ctx, bed.Bin("kubectl"), args...), bed)
	case "in":
		return inside(ctx, bed, args)
	case "down":
		return bed.Down()
	case "run":
		return whole(ctx, bed, args)
	case "node":
		return node(bed, args)
	}
	return fmt.Errorf("%q: no such command\n%s", command, usage)
}

func up(ctx context.Context, bed *testbed.Bed, args []string) error {
	var s testbed.UpSettings
	f := flag.NewFlagSet("up", flag.ContinueOnError)
	f.IntVar(&s.Nodes, "nodes", 2, "number of nodes, 1 to 8")
	f.StringVar(&s.ProxyMode, "proxy-mode", "nftables", "mode of kube-proxy: nftables or iptables")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := errors.Join(bed.Packages(ctx), bed.Build(ctx)); err != nil {
		return err
	}
	if err := bed.Up(ctx, s); err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s WEFT_KUBERNETES=%s PATH=%s:$PATH\n", bed.Kubeconfig(), bed.Dir, filepath.Join(bed.Dir, "bin"))
	return nil
}

// images builds the project's images for this machine and loads them where a cluster runs.
func images(ctx context.Context, bed *testbed.Bed) error {
	out := filepath.Join(bed.Dir, "weft-images")
	c := exec.CommandContext(ctx, "go", "run", "./deploy/image/build", "-version", "test", "-compression", "1", "-certificates=", "-o", out)
	c.Dir = bed.Module
	if err := attached(c, bed); err != nil {
		return err
	}
	if err := testApp(ctx, bed, out); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(out, "*.tar"))
	if err != nil {
		return err
	}
	return bed.Load(ctx, archives...)
}

// testApp builds and packs the workload of the tests.
func testApp(ctx context.Context, bed *testbed.Bed, out string) error {
	program := filepath.Join(out, "programs", "testapp")
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./test/kubernetes/testapp")
	c.Dir = bed.Module
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("testapp: %w", err)
	}
	return testbed.Pack(filepath.Join(out, "testapp.tar"), "localhost/testapp:1", program, "/usr/local/bin/testapp")
}

func inside(ctx context.Context, bed *testbed.Bed, args []string) error {
	if len(args) < 2 {
		return errors.New("in: want the number of a node and a command")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("in: node %q: want a number", args[0])
	}
	c, err := bed.Inside(ctx, testbed.Node(n), args[1:]...)
	if err != nil {
		return err
	}
	return attached(c, bed)
}

// whole starts a cluster with the project's images, runs a command, and takes the cluster down again.
func whole(ctx context.Context, bed *testbed.Bed, args []string) error {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	keep := f.Bool("keep", false, "leave the cluster running if the command fails")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return errors.New("run: want a command after --")
	}
	start := time.Now()
	if err := up(ctx, bed, nil); err != nil {
		return err
	}
	err := images(ctx, bed)
	if err == nil {
		err = attached(exec.CommandContext(ctx, f.Arg(0), f.Args()[1:]...), bed)
	}
	if err != nil && *keep {
		fmt.Println("cluster: kept running because the command failed; `go run ./test/kubernetes/cluster down` stops it")
		return err
	}
	err = errors.Join(err, bed.Down())
	fmt.Printf("cluster: down; %s in all\n", time.Since(start).Round(time.Second))
	return err
}

// attached runs a command with our terminal and the cluster's environment.
func attached(c *exec.Cmd, bed *testbed.Bed) error {
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = bed.Environment()
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 30 * time.Second
	return c.Run()
}

// node is pid 1 of a node.
func node(bed *testbed.Bed, args []string) error {
	var n, nodes int
	var mode string
	if len(args) == 3 {
		n, _ = strconv.Atoi(args[0])
		nodes, _ = strconv.Atoi(args[1])
		mode = args[2]
	}
	if n < 1 || nodes < n {
		return errors.New("node: only `up` starts this")
	}
	return bed.RunNode(context.Background(), testbed.NodeSettings{Node: testbed.Node(n), Nodes: nodes, ProxyMode: mode})
}
