package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"weft.mesh/weft/control/ca"
)

// options are the command line.
type options struct {
	sizes       []size
	times       int
	churn, rest time.Duration
	rate        int
	weft        string
	env         string
	json, write string
	section     string
	serve, at   string
	after       string
	command     string
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err == nil {
		err = act(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func parse(args []string, out io.Writer) (*options, error) {
	o := &options{command: "go run ./test/scale " + strings.Join(args, " ")}
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	f.SetOutput(out)
	sizes := f.String("sizes", "1000x10000x1000", "SERVICESxENDPOINTSxPROXIES, separated by commas; each is a mesh of its own")
	namespaces := f.Int("namespaces", 10, "namespaces that the services are spread over")
	f.IntVar(&o.times, "times", 60, "changes of each kind, one after the other")
	f.DurationVar(&o.churn, "churn", 30*time.Second, "how long endpoints change at -rate; 0: not at all")
	f.IntVar(&o.rate, "rate", 100, "endpoint changes a second")
	f.DurationVar(&o.rest, "rest", 10*time.Second, "quiet time before memory is read")
	f.StringVar(&o.serve, "serve", "", "only fill an API server with a mesh, and keep it in this folder until interrupted")
	f.StringVar(&o.at, "at", "", "use the mesh that another process serves in this folder (-serve)")
	f.StringVar(&o.after, "after", "", "JSON file of an earlier run, whose results stand before those of this one")
	f.StringVar(&o.weft, "weft", "", "weft binary; built from the tree if empty")
	f.StringVar(&o.env, "env", "", "environment of the control plane, NAME=VALUE separated by spaces")
	f.StringVar(&o.json, "json", "", "file for all figures")
	f.StringVar(&o.write, "write", "", "Markdown file of which the section between two marks is replaced")
	f.StringVar(&o.section, "section", "scale", "the section's name in its marks: scale or curves")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 || o.times <= 0 || o.rate <= 0 || *namespaces <= 0 {
		return nil, fmt.Errorf("unexpected arguments %v, or -times, -rate or -namespaces that is not above 0", f.Args())
	}
	for text := range strings.SplitSeq(*sizes, ",") {
		s, err := parseSize(text, *namespaces)
		if err != nil {
			return nil, err
		}
		o.sizes = append(o.sizes, s)
	}
	return o, nil
}

func act(ctx context.Context, o *options) error {
	if o.serve != "" {
		return serve(ctx, o, os.Stderr)
	}
	dir, err := os.MkdirTemp("", "weft-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.weft == "" {
		o.weft = filepath.Join(dir, "weft")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", o.weft, "./cmd/weft").CombinedOutput(); err != nil {
			return fmt.Errorf("build weft: %w\n%s", err, out)
		}
	}
	out, err := newOutput(o)
	if err != nil {
		return err
	}
	for i, s := range o.sizes {
		r, err := measure(ctx, filepath.Join(dir, fmt.Sprint(i)), s, o, os.Stderr)
		if r != nil {
			out.Results = append(out.Results, r)
		}
		if err != nil {
			return err
		}
	}
	out.finish()
	fmt.Print(out.markdown())
	if o.json != "" {
		b, err := json.MarshalIndent(out, "", "  ")
		if err == nil {
			err = os.WriteFile(o.json, append(b, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	if o.write != "" {
		return rewrite(o.write, o.section, out.markdown())
	}
	return nil
}

// serve fills an API server, which takes minutes for a large mesh, and keeps it for several runs.
func serve(ctx context.Context, o *options, log io.Writer) error {
	if err := os.MkdirAll(o.serve, 0o700); err != nil {
		return err
	}
	key, err := ca.Generate(trustDomain, time.Now())
	if err != nil {
		return err
	}
	c, err := startCluster(ctx, o.serve, o.sizes[0], key, log)
	if err != nil {
		return err
	}
	defer c.api.Stop()
	if err := c.save(o.serve, key); err != nil {
		return err
	}
	fmt.Fprintf(log, "%s: the mesh is in the API server %s\n", c.size, c.api.URL)
	<-ctx.Done()
	return os.Remove(filepath.Join(o.serve, "mesh.json"))
}

// meshOf gives a cluster with a mesh, and what ends it.
func meshOf(ctx context.Context, dir string, s size, o *options, log io.Writer) (*cluster, ca.Material, func(), error) {
	if o.at != "" {
		c, key, err := openCluster(o.at)
		return c, key, func() {}, err
	}
	key, err := ca.Generate(trustDomain, time.Now())
	if err != nil {
		return nil, key, nil, err
	}
	began := time.Now()
	c, err := startCluster(ctx, dir, s, key, log)
	if err != nil {
		return nil, key, nil, err
	}
	fmt.Fprintf(log, "%s: the mesh is in the API server after %s\n", s, time.Since(began).Round(time.Second))
	return c, key, func() { c.api.Stop() }, nil
}

// measure makes a mesh of one size and measures it.
func measure(ctx context.Context, dir string, s size, o *options, log io.Writer) (*result, error) {
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return nil, err
	}
	c, key, stop, err := meshOf(ctx, dir, s, o, log)
	if err != nil {
		return nil, err
	}
	defer stop()
	c.size.Proxies = min(s.Proxies, c.size.Endpoints)
	f, err := newFleet(c.size, key, net.JoinHostPort(planeAddress, "15012"), planeAddress)
	if err != nil {
		return nil, err
	}
	p := &plane{binary: o.weft, dir: dir, kubeconfig: c.api.Kubeconfig, env: strings.Fields(o.env)}
	if err := p.start(); err != nil {
		return nil, err
	}
	defer p.kill()
	defer f.close()
	b := &bench{cluster: c, plane: p, fleet: f, o: o, log: log}
	return b.run(ctx)
}
