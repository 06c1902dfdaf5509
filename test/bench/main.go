package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	cases, peers []string
	rounds       int
	seconds      float64
	json, write  string
	quick        bool
	weft         string // binary; "": built from the tree
	base         string // another binary to compare with
	profiles     string // directory
	command      string // as typed
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var out *output
	if err == nil {
		out, err = run(ctx, o, os.Stderr)
	}
	if err == nil {
		err = finish(o, out, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string, errs io.Writer) (*options, error) {
	o := &options{command: strings.Join(append([]string{"go run ./test/bench"}, args...), " ")}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(errs)
	cases := fs.String("cases", strings.Join(caseNames, ","), "what to measure")
	names := fs.String("peers", "haproxy,nginx", "what to measure weft-proxy next to: haproxy, nginx, envoy")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds of each case")
	fs.Float64Var(&o.seconds, "seconds", 2, "length of a round")
	fs.StringVar(&o.json, "json", "", "write everything to this file")
	fs.StringVar(&o.write, "write", "", "write the tables into this document, between its markers")
	fs.BoolVar(&o.quick, "quick", false, "one short round: whether it works, not how fast it is")
	fs.StringVar(&o.weft, "weft-proxy", "", "use this binary instead of building one; none measures the peers only")
	fs.StringVar(&o.base, "base", "", "measure this other build of weft-proxy too, as \"base\"")
	fs.StringVar(&o.profiles, "profiles", "", "write CPU and allocation profiles of weft-proxy into this directory, one more round for each case")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if o.quick {
		o.rounds, o.seconds = 1, 0.2
	}
	if fs.NArg() > 0 || o.rounds < 1 || o.seconds <= 0 || o.seconds > maxRun.Seconds() {
		return nil, fmt.Errorf("usage: go run ./test/bench [-cases …] [-peers …] [-rounds 1…] [-seconds …%v] [-json file] [-write file] [-profiles dir] [-weft-proxy file] [-base file] [-quick]", maxRun.Seconds())
	}
	var err error
	if o.cases, err = list("-cases", *cases, caseNames); err != nil {
		return nil, err
	}
	o.peers, err = list("-peers", *names, peerNames())
	return o, err
}

// list splits a flag's value and checks it.
func list(name, value string, known []string) ([]string, error) {
	var out []string
	for v := range strings.SplitSeq(value, ",") {
		if v = strings.TrimSpace(v); v == "" {
			continue
		}
		if !slices.Contains(known, v) {
			return nil, fmt.Errorf("%s: unknown %q; want %s", name, v, strings.Join(known, ", "))
		}
		out = append(out, v)
	}
	return out, nil
}

func run(ctx context.Context, o *options, progress io.Writer) (*output, error) {
	begin := time.Now()
	dir, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	debug.SetGCPercent(400) // the generator's collections take time from the proxies
	b, stop, err := setUp(o, dir, progress)
	if err != nil {
		return nil, err
	}
	defer stop()
	out := &output{Date: begin.UTC().Format(time.DateOnly), Machine: machine(), Command: o.command, Load: loadAverage(), Versions: map[string]string{}}
	for _, p := range b.peers {
		out.Versions[p.name] = p.version(b.env.bins[p.name])
	}
	for _, c := range o.cases {
		if c == caseIdle {
			if out.Idle, err = b.idle(ctx); err != nil {
				return nil, err
			}
			continue
		}
		rs, err := b.kind(ctx, c)
		if err != nil {
			return nil, err
		}
		out.Results = append(out.Results, rs...)
	}
	out.Load += " at start, " + loadAverage() + " at end"
	out.Took = "took " + time.Since(begin).Round(time.Second).String()
	return out, nil
}

// setUp finds the programs and starts what all cases share.
func setUp(o *options, dir string, progress io.Writer) (*bench, func(), error) {
	b := &bench{rounds: o.rounds, seconds: o.seconds, profiles: o.profiles, out: progress, env: &env{dir: dir, bins: map[string]string{}}}
	fmt.Fprintf(progress, "%s, load average %s\n", machine(), loadAverage())
	for _, p := range peers {
		bin, err := o.binary(p, dir)
		if err != nil {
			if p.find == nil {
				return nil, nil, err
			}
			fmt.Fprintln(progress, "left out:", err)
		}
		if bin != "" {
			b.env.bins[p.name] = bin
			b.peers = append(b.peers, p)
		}
	}
	if o.base != "" {
		bin, err := filepath.Abs(o.base)
		if err != nil {
			return nil, nil, err
		}
		p := basePeer()
		b.env.bins[p.name] = bin
		b.peers = append(b.peers, p)
	}
	if err := writeCerts(dir); err != nil {
		return nil, nil, err
	}
	var err error
	if b.env.backend, err = startBackend(); err != nil {
		return nil, nil, err
	}
	if b.env.mesh, err = startMesh(dir); err != nil {
		b.env.backend.close()
		return nil, nil, err
	}
	return b, func() {
		b.env.mesh.stop()
		b.env.backend.close()
	}, nil
}

// binary is "" for a peer that was not asked for.
func (o *options) binary(p *peer, dir string) (string, error) {
	switch {
	case p.find == nil && o.weft == "none":
		return "", nil
	case p.find == nil && o.weft != "":
		return filepath.Abs(o.weft)
	case p.find == nil:
		return buildWeft(dir)
	case !slices.Contains(o.peers, p.name):
		return "", nil
	}
	return p.find()
}

// finish prints the tables and writes files.
func finish(o *options, out *output, stdout io.Writer) error {
	text := out.markdown()
	fmt.Fprint(stdout, "\n", text)
	if o.json != "" {
		b, err := out.json()
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.write == "" {
		return nil
	}
	return writeBetween(o.write, text)
}

// treeVersion is the commit of the tree that weft-proxy was built from.
func treeVersion() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown commit"
	}
	return strings.TrimSpace(string(out))
}
