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
	cases       []string
	peers       []*peer // without weft-proxy
	rounds      int
	seconds     float64
	json, write string
	quick       bool
	weft        string // binary; "": built from the tree
	base        string // another binary to compare with
	profiles    string // directory
	gate        string // commit to compare with; "": no gate
	command     string // as typed
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		if err := work(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
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
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func act(ctx context.Context, o *options) error {
	if o.gate != "" {
		return gate(ctx, o, os.Stderr, os.Stdout)
	}
	out, err := run(ctx, o, os.Stderr)
	if err != nil {
		return err
	}
	return finish(o, out, os.Stdout)
}

func parse(args []string, errs io.Writer) (*options, error) {
	o := &options{command: strings.Join(append([]string{"go run ./test/bench"}, args...), " ")}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(errs)
	cases := fs.String("cases", strings.Join(caseNames, ","), "what to measure")
	names := fs.String("peers", "haproxy,nginx", "what to measure weft-proxy next to: all, or a list of haproxy, nginx, envoy, caddy, relay (HAProxy that hands over bytes) and direct (no proxy); haproxy@2 is on two workers, weft@1 on one thread")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds of each case")
	fs.Float64Var(&o.seconds, "seconds", 2, "length of a round")
	fs.StringVar(&o.json, "json", "", "write everything to this file")
	fs.StringVar(&o.write, "write", "", "write the tables into this document, between its markers")
	fs.BoolVar(&o.quick, "quick", false, "one short round: whether it works, not how fast it is")
	fs.StringVar(&o.weft, "weft-proxy", "", "use this binary instead of building one; none measures the peers only")
	fs.StringVar(&o.base, "base", "", "measure this other build of weft-proxy too, as \"base\"")
	fs.StringVar(&o.profiles, "profiles", "", "write CPU and allocation profiles of weft-proxy into this directory, one more round for each case")
	fs.StringVar(&o.gate, "gate", "", "compare with the merge base with this commit and fail on a regression; auto: with main")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if o.quick {
		o.rounds, o.seconds = 1, 0.2
	}
	if fs.NArg() > 0 || o.rounds < 1 || o.seconds <= 0 || o.seconds > maxRun.Seconds() {
		return nil, fmt.Errorf("usage: go run ./test/bench [-cases …] [-peers …] [-rounds 1…] [-seconds …%v] [-json file] [-write file] [-profiles dir] [-weft-proxy file] [-base file] [-gate commit] [-quick]", maxRun.Seconds())
	}
	var err error
	if o.cases, err = list("-cases", *cases, caseNames); err != nil {
		return nil, err
	}
	o.peers, err = peerList(*names)
	return o, err
}

// everyone is what -peers all means.
const everyone = "haproxy,nginx,envoy,caddy,relay,direct,weft@1,haproxy@2,nginx@2,envoy@2"

func peerList(value string) ([]*peer, error) {
	if value == "all" {
		value = everyone
	}
	var out []*peer
	for v := range strings.SplitSeq(value, ",") {
		if v = strings.TrimSpace(v); v == "" || v == "weft" { // weft-proxy is always there
			continue
		}
		p, err := findPeer(v)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(q *peer) bool { return q.name == v }) {
			out = append(out, p)
		}
	}
	return out, nil
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
	b, stop, err := setUp(o, dir, progress)
	if err != nil {
		return nil, err
	}
	defer stop()
	out := &output{Date: begin.UTC().Format(time.DateOnly), Machine: machine(), Command: o.command, Load: loadAverage(), Versions: map[string]string{}}
	for _, p := range b.peers {
		out.Versions[p.program] = p.version(b.env.bins[p.name])
	}
	for _, c := range o.cases {
		if c == caseIdle {
			if out.Idle, err = b.idle(ctx); err != nil {
				return nil, err
			}
			continue
		}
		rs, err := b.measureCase(ctx, c)
		if err != nil {
			return nil, err
		}
		out.Results = append(out.Results, rs...)
	}
	out.Commands, out.Absent = b.env.commands, b.left
	out.Load += " at start, " + loadAverage() + " at end"
	out.Took = "took " + time.Since(begin).Round(time.Second).String()
	return out, nil
}

// setUp finds the programs and starts what all cases share.
func setUp(o *options, dir string, progress io.Writer) (*bench, func(), error) {
	debug.SetGCPercent(400) // the generator's collections take time from the proxies
	b := &bench{rounds: o.rounds, seconds: o.seconds, quick: o.quick, profiles: o.profiles, out: progress, env: &env{dir: dir, bins: map[string]string{}, commands: map[string]string{}}}
	fmt.Fprintf(progress, "%s, load average %s\n", machine(), loadAverage())
	weft, err := o.weftBinary(dir)
	if err != nil {
		return nil, nil, err
	}
	if weft != "" {
		p, err := findPeer("weft")
		if err != nil {
			return nil, nil, err
		}
		b.add(p, weft)
	}
	for _, p := range o.peers {
		bin, err := weft, error(nil)
		if p.find != nil {
			bin, err = p.find()
		}
		if err == nil && bin == "" { // weft-proxy on other threads, with -weft-proxy none
			continue
		}
		if err != nil {
			fmt.Fprintf(progress, "LEFT OUT: %s: %v\n", p.name, err)
			b.left = append(b.left, p.name)
			continue
		}
		b.add(p, bin)
	}
	if o.base != "" {
		bin, err := filepath.Abs(o.base)
		if err != nil {
			return nil, nil, err
		}
		b.add(basePeer(), bin)
	}
	if err := writeCerts(dir); err != nil {
		return nil, nil, err
	}
	if b.env.backend, err = startBackend(); err != nil {
		return nil, nil, err
	}
	if b.env.mesh, err = startMesh(dir); err != nil {
		b.env.backend.close()
		return nil, nil, err
	}
	for _, account := range []string{clientAccount, strangerAccount} {
		if err := b.env.mesh.writeClient(dir, account); err != nil {
			b.env.mesh.stop()
			b.env.backend.close()
			return nil, nil, err
		}
	}
	return b, func() {
		b.env.mesh.stop()
		b.env.backend.close()
	}, nil
}

// add makes a peer take part.
func (b *bench) add(p *peer, bin string) {
	b.env.bins[p.name] = bin
	b.peers = append(b.peers, p)
}

// weftBinary is "" if only the peers are measured.
func (o *options) weftBinary(dir string) (string, error) {
	switch o.weft {
	case "none":
		return "", nil
	case "":
		return buildWeft(dir)
	}
	return filepath.Abs(o.weft)
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
