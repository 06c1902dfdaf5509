package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"weft.mesh/weft/cli/tour"
	"weft.mesh/weft/samples/bookinfo"
)

// demoManifests is Bookinfo as Istio's documentation starts it, and the two
// pods that the tasks call services from.
var demoManifests = []string{
	"platform/bookinfo.yaml", "platform/sleep.yaml", "platform/sleep-legacy.yaml", "networking/bookinfo-gateway.yaml",
}

// demoStore is the demo's own store: it begins with nothing, and never touches
// what weft apply kept for weft up.
const demoStore = "demo.db"

// startTimeout bounds the wait for the first page.
const startTimeout = 60 * time.Second

// demoRate is the gentle load in requests per second.
const demoRate = 10

func (a *app) demoCommand() *cobra.Command {
	var o meshOptions
	var walk, check, noLoad bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run Bookinfo in a mesh on this machine; --tour explains what a mesh does",
		Long: `Run a whole mesh on this machine: control plane, the Bookinfo sample with a
sidecar beside each pod, an ingress gateway and a gentle load. Ctrl-C ends it
and leaves nothing behind.`,
		Example: `  weft demo             # then open http://localhost:8080/productpage
  weft demo --tour      # the classic tasks, one by one, explained
  weft demo --check     # the same without a person; exit code 0 if all held`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &demo{app: a, opts: &o, started: time.Now()}
			what := d.live
			switch {
			case walk && check:
				return &exitError{exitUsage, errors.New("give --tour or --check, not both")}
			case check:
				what = d.check
			case walk:
				what = d.tour
			case noLoad:
				what = d.idle
			}
			if err := o.load(); err != nil {
				return err
			}
			m := mesh{app: a, opts: o, ingress: true, manifests: demoManifests, store: demoStore}
			return m.run(cmd.Context(), func(ctx context.Context) error {
				if err := d.start(ctx); err != nil {
					return err
				}
				return what(ctx)
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&walk, "tour", false, "walk through the classic tasks and explain each")
	cmd.Flags().BoolVar(&check, "check", false, "walk through the tasks without a person and compare; exit code 1 if anything differs")
	cmd.Flags().BoolVar(&noLoad, "no-load", false, "no load and no live view")
	return cmd
}

// demo is what runs beside the mesh, in the user's own process.
type demo struct {
	app     *app
	opts    *meshOptions
	started time.Time
}

func (d *demo) url() string { return hostURL(d.opts.ingress) }

// hostURL is the URL of an address on this machine, as a person types it.
func hostURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func (d *demo) page() string { return d.url() + "/productpage" }

// start waits for the first page and shows what it waits for.
func (d *demo) start(ctx context.Context) error {
	a := d.app
	c := a.colors(a.env.Stderr)
	tty := term.IsTerminal(int(a.env.Stderr.Fd()))
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	last := ""
	for {
		if d.loads(ctx) {
			if tty && last != "" {
				fmt.Fprint(a.env.Stderr, "\r\x1b[K")
			}
			fmt.Fprintf(a.env.Stderr, "%s in %.1f s: %s\n", c.green("ready"), time.Since(d.started).Seconds(), c.bold(d.page()))
			fmt.Fprintf(a.env.Stderr, "console: %s\n", c.bold(hostURL(d.opts.console)))
			return nil
		}
		if s := d.progress(ctx); tty && s != last {
			fmt.Fprintf(a.env.Stderr, "\r\x1b[K%s", s)
			last = s
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return withHint(fmt.Errorf("no page from %s after %s", d.page(), startTimeout), "see weft ps and weft status")
			}
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *demo) loads(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.page(), nil)
	if err != nil {
		return false
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(b), "Book reviews")
}

// progress says in a few words how far the start is.
func (d *demo) progress(ctx context.Context) string {
	pods, err := d.mesh().pods(ctx)
	if err != nil || len(pods) == 0 {
		return "starting the control plane…"
	}
	ready := 0
	for _, p := range pods {
		if p.Ready {
			ready++
		}
	}
	return fmt.Sprintf("starting pods: %d of %d ready…", ready, len(pods))
}

func (d *demo) mesh() *meshClient {
	return &meshClient{app: d.app, Browser: tour.Browser{Base: d.url()}}
}

// idle leaves the mesh alone until it is told to end.
func (d *demo) idle(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// live generates load and shows what the mesh sees of it.
func (d *demo) live(ctx context.Context) error {
	load := newLoad(d.page(), demoRate)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer func() { cancel(); <-done }()
	go func() { defer close(done); load.run(ctx) }()
	v := &view{app: d.app, mesh: d.mesh(), load: load, page: d.page(), console: hostURL(d.opts.console)}
	return v.run(ctx)
}

func (d *demo) check(ctx context.Context) error {
	return d.walk(ctx, &plainReporter{app: d.app})
}

func (d *demo) tour(ctx context.Context) error {
	return d.walk(ctx, &guide{plainReporter: plainReporter{app: d.app}, page: d.page(), in: d.app.env.Stdin})
}

func (d *demo) walk(ctx context.Context, rep tour.Reporter) error {
	m := d.mesh()
	if err := m.Ready(ctx); err != nil {
		return err
	}
	r := &tour.Run{Mesh: m, Manifests: bookinfo.Manifests, Report: rep}
	began := time.Now()
	res, err := r.Walk(ctx, tour.Steps())
	if errors.Is(err, errQuit) {
		return nil
	}
	if err != nil {
		return err
	}
	c := d.app.colors(os.Stdout)
	word := c.green("all held")
	if len(res.Failures) > 0 {
		word = c.red(fmt.Sprintf("%d did not hold", len(res.Failures)))
	}
	d.app.printf("\n%s, %s in %.0f s: %s\n", plural(res.Steps, "step"), plural(res.Checks, "comparison"), time.Since(began).Seconds(), word)
	for _, f := range res.Failures {
		d.app.printf("  %s  %s\n", c.red("FAIL"), f)
	}
	if len(res.Failures) > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}
