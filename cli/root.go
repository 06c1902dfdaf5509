// Package cli is the weft command: one file for each sub-command. Commands talk
// to a running mesh over the Unix sockets in its state directory; only
// control-plane, up and demo start one.
//
// Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 no mesh is running.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/cli/kubemesh"
)

// Exit codes that scripts can rely on.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitNoMesh = 3
)

// Environ is what the process was started with. Nothing below reads the
// process's own environment.
type Environ struct {
	Args           []string // with the program's name
	Environ        []string // KEY=VALUE
	Stdin          *os.File
	Stdout, Stderr *os.File
	Getenv         func(string) string
}

// app is the state that sub-commands share: flags and streams.
type app struct {
	env      Environ
	stateDir string
	output   string
	noColor  bool

	kubeconfig, kubeContext string         // which cluster; both empty is kubectl's choice
	meshNamespace           string         // of the control plane on a cluster
	onCluster               *kubemesh.Mesh // nil for the local mesh

	mu     sync.Mutex // protects the following
	client *client.Client
	of     string // the state directory that client is of
}

// mesh is the client of the state directory's sockets.
func (a *app) mesh() *client.Client {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == nil || a.of != a.stateDir {
		a.close()
		a.client, a.of = client.New(a.stateDir), a.stateDir
	}
	return a.client
}

// close ends idle connections.
func (a *app) close() {
	if a.client != nil {
		a.client.Close()
	}
}

// exitError ends the process with a code of its own; a nil err prints nothing more.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// hinted is an error with advice.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

func withHint(err error, hint string) error { return &hinted{err, hint} }

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, env Environ) int {
	a := &app{env: env}
	defer a.close()
	root := a.root()
	root.SetArgs(env.Args[1:])
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	return a.report(root.ExecuteContext(ctx))
}

func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	switch {
	case misused(err):
		code = exitUsage
	case errors.Is(err, client.ErrNotRunning):
		code = exitNoMesh
	}
	var ee *exitError
	if errors.As(err, &ee) {
		code = ee.code
		if ee.err == nil {
			return code
		}
	}
	c := a.colors(a.env.Stderr)
	fmt.Fprintf(a.env.Stderr, "%s %s\n", c.red("error:"), messageOf(err))
	if fix := fixOf(err); fix != "" {
		fmt.Fprintf(a.env.Stderr, "%s  %s\n", c.dim("fix:"), fix)
	}
	return code
}

// messageOf is what to print of an error. What the mesh itself answered needs
// no mention of the socket that it came through.
func messageOf(err error) string {
	if e, ok := err.(*client.Error); ok && e.Status != 0 {
		return e.Cause.Error()
	}
	return err.Error()
}

// fixOf is the advice that comes with an error; "" when there is none.
func fixOf(err error) string {
	var h *hinted
	var e *client.Error
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &e):
		return e.Fix
	}
	return ""
}

// misused tells whether cobra refused the command line; its errors have no types.
func misused(err error) bool {
	return strings.HasPrefix(err.Error(), "unknown command ") || strings.HasPrefix(err.Error(), "required flag(s) ")
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "A service mesh: Istio's API, its own proxy, one command to run",
		Long: `Weft connects, secures, controls and observes services without a change to
their code. It takes Istio's configuration and needs neither Kubernetes nor
Docker nor root.

Start with:  weft demo`,
		Example: `  weft demo                                  # Bookinfo on http://localhost:8080/productpage
  weft up ./manifests                        # your own services
  weft apply -f virtual-service.yaml         # change routing while it runs
  weft status                                # who has which config
  weft proxy-config routes productpage-v1    # what a sidecar does`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitUsage, withHint(err, "see "+cmd.CommandPath()+" --help")}
	})
	pf := root.PersistentFlags()
	pf.StringVar(&a.stateDir, "state-dir", a.defaultStateDir(), "folder of the mesh's state and sockets")
	pf.BoolVar(&a.noColor, "no-color", a.env.Getenv("NO_COLOR") != "", "no colours (they are off anyway when the output is not a terminal)")
	groups := []*cobra.Group{{ID: "run", Title: "Run a mesh:"}, {ID: "kubernetes", Title: "Run it on Kubernetes:"}, {ID: "config", Title: "Change it:"}, {ID: "see", Title: "See what it does:"}}
	root.AddGroup(groups...)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", a.demoCommand(), a.upCommand(), a.downCommand(), a.controlPlaneCommand())
	add("kubernetes", a.installCommand(), a.upgradeCommand(), a.uninstallCommand(), a.precheckCommand(), a.verifyCommand(), a.tagCommand(), a.injectCommand())
	add("config", a.applyCommand(), a.deleteCommand(), a.diffCommand(), a.analyzeCommand(), a.scaleCommand(), a.restartCommand(), a.tokenCommand())
	add("see", a.statusCommand(), a.psCommand(), a.logsCommand(), a.execCommand(), a.getCommand(), a.describeCommand(), a.proxyConfigCommand(), a.requestCommand(), a.bugReportCommand(), a.versionCommand())
	return root
}

// defaultStateDir is $XDG_STATE_HOME/weft or ~/.local/state/weft.
func (a *app) defaultStateDir() string {
	if d := a.env.Getenv("WEFT_STATE_DIR"); d != "" {
		return d
	}
	if d := a.env.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "weft")
	}
	home := a.env.Getenv("HOME")
	if home == "" {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "state", "weft")
}

// outputFlag adds -o to a command that prints data.
func (a *app) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.output, "output", "o", "", "json or yaml instead of a table")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	pre := cmd.PreRunE
	cmd.PreRunE = func(c *cobra.Command, args []string) error {
		switch a.output {
		case "", "json", "yaml":
		default:
			return &exitError{exitUsage, fmt.Errorf("--output %q: want json or yaml", a.output)}
		}
		if pre != nil {
			return pre(c, args)
		}
		return nil
	}
}

// usageArgs wraps cobra's argument checks with our exit code.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &exitError{exitUsage, withHint(err, "see "+cmd.CommandPath()+" --help")}
		}
		return nil
	}
}

// showHelp is what a command that only groups others does by itself. Without
// it cobra takes a mistyped sub-command for a wish to read the help, exit code 0.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

func (a *app) out() io.Writer { return a.env.Stdout }

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.out(), format, args...) }

// splitRef reads NAMESPACE/NAME or NAME.
func splitRef(s, defaultNS string) (ns, name string) {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return ns, name
	}
	return defaultNS, s
}
