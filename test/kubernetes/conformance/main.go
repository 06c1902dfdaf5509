// Command conformance runs the Gateway API's conformance suite on the running
// cluster: it builds the suite and its workloads from their modules, loads them,
// installs Weft if it is not there, and writes the report.
//
//	go run ./test/kubernetes/cluster run -- go run ./test/kubernetes/conformance
//	go run ./test/kubernetes/conformance -run-test MeshBasic     on a running cluster, one test; no report
//
// Flags that it does not know go to the suite.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"weft.mesh/weft/deploy/image"
	"weft.mesh/weft/test/kubernetes/testbed"
)

// Images that the suite's manifests name. It has them on a registry; here
// they are built from its sources, and echo-advanced, which has none there, is ours.
var (
	basicImages    = []string{"registry.k8s.io/gateway-api/echo-basic:v1.5.1", "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.2", "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3"}
	advancedImages = []string{"registry.k8s.io/gateway-api/echo-advanced:v1.5.1"}
	dnsImages      = []string{"registry.k8s.io/coredns/coredns:v1.12.2"}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	bed, err := testbed.Find(os.Stdout)
	if err != nil {
		return err
	}
	if !bed.Running() {
		return errors.New("no cluster is running: go run ./test/kubernetes/cluster up")
	}
	s := suite{bed, filepath.Join(bed.Module, "test/gatewayapi"), filepath.Join(bed.Dir, "gatewayapi")}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.build, s.load, s.install} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.test(ctx, args)
}

type suite struct {
	bed    *testbed.Bed
	module string // test/gatewayapi
	out    string // what is built
}

// build builds the suite and the programs of its pods.
func (s suite) build(ctx context.Context) error {
	for _, args := range [][]string{
		{"build", "-ldflags", "-s -w", "-o", filepath.Join(s.out, "echo"), "./echo"},
		{"build", "-ldflags", "-s -w", "-o", filepath.Join(s.out, "echo-basic"), "sigs.k8s.io/gateway-api/conformance/echo-basic"},
		{"test", "-c", "-o", filepath.Join(s.out, "suite"), "."},
	} {
		fmt.Println("go", strings.Join(args, " "))
		c := exec.CommandContext(ctx, "go", args...)
		c.Dir = s.module
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("go %s: %w", args[len(args)-1], err)
		}
	}
	return nil
}

// load packs and loads the images under every name that a manifest has.
func (s suite) load(ctx context.Context) error {
	var archives []string
	pack := func(program string, names []string, p image.Platform) error {
		for i, name := range names {
			file := filepath.Join(s.out, fmt.Sprintf("%s-%d.tar", program, i))
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			err = errors.Join(image.Write(f, image.Image{Name: name, Platforms: []image.Platform{p}}, image.Options{Compression: 1}), f.Close())
			if err != nil {
				return err
			}
			archives = append(archives, file)
		}
		return nil
	}
	advanced := image.Host(filepath.Join(s.out, "echo"), "/usr/local/bin/server")
	advanced.Files = append(advanced.Files, image.File{Path: "/usr/local/bin/client", Kind: image.Symlink, Link: "server"})
	basic := image.Host(filepath.Join(s.out, "echo-basic"), "/echo-basic")
	basic.User = "65532" // as the suite's own image
	dns := image.Host(s.bed.Bin("coredns"), "/coredns")
	if err := errors.Join(pack("echo", advancedImages, advanced), pack("echo-basic", basicImages, basic), pack("coredns", dnsImages, dns)); err != nil {
		return err
	}
	return s.bed.Load(ctx, archives...)
}

// install installs Weft, unless it is there.
func (s suite) install(ctx context.Context) error {
	if s.bed.Kubectl(ctx, nil, "-n", "weft-system", "get", "deployment", "weft") == nil {
		return nil
	}
	return s.command(ctx, filepath.Join(s.bed.Dir, "weft-images", "programs", image.HostArchitecture, "weft"), "install", "--set", "global.tag=test")
}

// test runs the suite. The report is written only for a whole run: one with other flags says nothing of conformance.
func (s suite) test(ctx context.Context, args []string) error {
	all := []string{"-test.v", "-test.timeout=90m", "-test.run=^TestConformance$", "-conformance-options-file=" + filepath.Join(s.module, "options.yaml")}
	if len(args) == 0 {
		version, err := s.version(ctx)
		if err != nil {
			return err
		}
		all = append(all, "-version="+version, "-report-output="+filepath.Join(s.bed.Module, "docs/kubernetes/gateway-api-conformance.yaml"))
	}
	return s.command(ctx, filepath.Join(s.out, "suite"), append(all, args...)...)
}

// version is the commit that is tested, with -dirty after it if the work tree is another.
func (s suite) version(ctx context.Context) (string, error) {
	c := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
	c.Dir = s.bed.Module
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("git describe: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (s suite) command(ctx context.Context, program string, args ...string) error {
	c := exec.CommandContext(ctx, program, args...)
	c.Dir = s.out
	c.Env = s.bed.Environment()
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}
