package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// gateAuto chooses the commit to compare with: where this branch left main; on main itself the last commit or the one before it.
	gateAuto = "auto"
	// A change may cost this much more CPU time, and make this many more allocations. What costs more does so in
	// three of four rounds: a median alone moves by a tenth when the machine is busy with something else.
	gateCPU    = 1.10
	gateAllocs = 1.05
	// allocNoise is how far the allocations for a request move by themselves: timers, the garbage collector.
	allocNoise = 0.05
)

// gateCases are the workloads that the gate compares.
var gateCases = []string{"h1.saturated", "mtls.saturated", "h2.m8"}

var errGate = errors.New("gate: this tree costs more than the commit that it is compared with")

// gated is the comparison of one workload.
type gated struct {
	workload              string
	cpu, least, most      float64 // ratio of this tree to the base
	allocsWas, allocsIs   float64
	cpuWorse, allocsWorse bool
	repeated              bool
}

func (g *gated) worse() bool { return g.cpuWorse || g.allocsWorse }

// gate compares this tree's weft-proxy with that of the base commit, in the same rounds.
func gate(ctx context.Context, o *options, progress, stdout io.Writer) error {
	commit, why, err := gateBase(".", o.gate)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "gate: %s against %s (%s)\n", treeVersion(), commit, why)
	dir, err := os.MkdirTemp("", "weft-gate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.base, err = buildAt(dir, commit); err != nil {
		return err
	}
	o.peers = nil
	b, stop, err := setUp(o, dir, progress)
	if err != nil {
		return err
	}
	defer stop()
	var all []gated
	for _, id := range gateCases {
		g, err := b.gateCase(ctx, id)
		if err != nil {
			return fmt.Errorf("gate: %s: %w (if %s does not take this tree's configuration, name a later commit with -gate)", id, err, commit)
		}
		all = append(all, g)
	}
	fmt.Fprint(stdout, gateTable(all))
	if slices.ContainsFunc(all, func(g gated) bool { return g.worse() }) {
		return errGate
	}
	return nil
}

// gateCase measures once, and once more from new processes if that looks worse: a machine that is busy with other things is not a regression.
func (b *bench) gateCase(ctx context.Context, id string) (gated, error) {
	w := workloads[slices.IndexFunc(workloads, func(w workload) bool { return w.id == id })]
	var g gated
	for try := range 2 {
		rs, err := b.measureAnew(ctx, []workload{w})
		if err != nil {
			return g, err
		}
		g = judge(&rs[0])
		g.repeated = try > 0
		if !g.worse() {
			break
		}
	}
	return g, nil
}

// judge compares "weft" with "base".
func judge(r *result) gated {
	ratios := r.ratios(weftName, "base", func(x round) float64 { return float64(x.CPU) })
	s, _ := spread(ratios)
	g := gated{workload: r.Workload, cpu: s.value, least: s.least, most: s.most}
	allocs := func(peer string) float64 {
		return median(pick(r.Rounds[peer], func(x round) float64 { return x.Allocs }))
	}
	g.allocsWas, g.allocsIs = allocs("base"), allocs(weftName)
	g.cpuWorse = g.cpu > gateCPU && quarter(ratios) > 1
	g.allocsWorse = g.allocsIs > max(0, g.allocsWas)*gateAllocs+allocNoise || g.allocsIs < 0 && g.allocsWas >= 0
	return g
}

// quarter is the value that a quarter of v is below.
func quarter(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(v))[len(v)/4]
}

func gateTable(all []gated) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| case | CPU per request to the base [least–most] | at most | allocations: base | now | at most | verdict |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, g := range all {
		verdict := "ok"
		if g.worse() {
			verdict = "**worse**"
		}
		if g.repeated {
			verdict += ", second try"
		}
		fmt.Fprintf(&b, "| %s | %.2f× [%.2f–%.2f] | %.2f× | %.2f | %.2f | %.2f | %s |\n", g.workload, g.cpu, g.least, g.most, gateCPU,
			g.allocsWas, g.allocsIs, max(0, g.allocsWas)*gateAllocs+allocNoise, verdict)
	}
	return b.String()
}

// gateBase finds the commit to compare with, and says why it is that one.
func gateBase(dir, ref string) (commit, why string, err error) {
	if ref != gateAuto {
		commit, err = git(dir, "merge-base", "HEAD", ref)
		return commit, "merge base with " + ref, err
	}
	head, err := git(dir, "rev-parse", "HEAD")
	if err != nil {
		return "", "", err
	}
	for _, main := range []string{"origin/main", "main"} {
		mb, err := git(dir, "merge-base", "HEAD", main)
		if err == nil && mb != head {
			return mb, "merge base with " + main, nil
		}
	}
	dirty, err := git(dir, "status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return "", "", err
	}
	if dirty != "" {
		return head, "HEAD: the tree has changes", nil
	}
	commit, err = git(dir, "rev-parse", "HEAD~1")
	return commit, "the commit before HEAD", err
}

func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// buildAt builds weft-proxy of a commit in a worktree of its own, which is gone afterwards.
func buildAt(dir, commit string) (string, error) {
	tree, bin := filepath.Join(dir, "base"), filepath.Join(dir, "weft-proxy-base")
	if _, err := git(".", "worktree", "add", "--quiet", "--detach", tree, commit); err != nil {
		return "", err
	}
	defer git(".", "worktree", "remove", "--force", tree)
	return bin, build(tree, bin)
}
