package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
)

// maxFile bounds one file in bytes.
const maxFile = 16 << 20

func (a *app) applyCommand() *cobra.Command {
	var files []string
	var ns string
	var dry, wait bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Check objects against the whole mesh and store them, all or none",
		Example: `  weft apply -f virtual-service.yaml
  weft apply -f ./config -n prod
  cat route.yaml | weft apply -f -
  weft apply -f route.yaml --dry-run         # only check`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fs, err := a.readFiles(files)
			if err != nil {
				return err
			}
			return a.apply(cmd.Context(), admin.ApplyRequest{Files: fs, Namespace: ns, DryRun: dry}, wait)
		},
	}
	cmd.Flags().StringSliceVarP(&files, "filename", "f", nil, "file, folder or - for standard input; may be repeated")
	a.namespaceFlag(cmd, &ns, "default", "namespace of objects that name none")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check only, store nothing")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until every connected proxy has answered (at most 30 s)")
	_ = cmd.MarkFlagRequired("filename")
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

func (a *app) apply(ctx context.Context, req admin.ApplyRequest, wait bool) error {
	if ds := unsendable(req.Files); len(ds) > 0 {
		return a.applied(admin.ApplyResponse{Diagnostics: ds}, req.DryRun, "stored")
	}
	resp, err := a.mesh().Apply(ctx, req)
	if err != nil {
		return err
	}
	if err := a.applied(resp, req.DryRun, "stored"); err != nil || !wait || req.DryRun {
		return err
	}
	return a.settle(ctx, resp.World)
}

// unsendable checks what would not survive the way to the control plane: text
// that is not UTF-8 would arrive changed, and be refused for the wrong reason.
func unsendable(files []admin.File) []admin.Diagnostic {
	var out []admin.Diagnostic
	for _, f := range files {
		if !utf8.ValidString(f.Content) {
			_, ds := convert.Decode(f, convert.Options{})
			out = append(out, ds...)
		}
	}
	return out
}

// How long --wait waits, and how often it looks.
const (
	settleTimeout = 30 * time.Second
	settlePoll    = 20 * time.Millisecond
)

// settle waits until every connected proxy has answered everything up to a
// World. A proxy that refused something has answered too: that is an error.
func (a *app) settle(ctx context.Context, world string) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		st, err := a.mesh().Status(ctx)
		if err != nil {
			return err
		}
		late, refused := behind(*st, world)
		if len(late) == 0 && len(refused) == 0 {
			return nil
		}
		if len(late) == 0 {
			return withHint(fmt.Errorf("refused by %s", strings.Join(refused, ", ")), "see weft status for the reason")
		}
		select {
		case <-ctx.Done():
			return withHint(fmt.Errorf("not yet taken by %s", strings.Join(late, ", ")), "see weft status")
		case <-time.After(settlePoll):
		}
	}
}

// behind lists connected proxies that have not answered a World, and those that refused part of it.
func behind(st admin.ControlStatus, world string) (late, refused []string) {
	for _, p := range st.Proxies {
		if p.Lost != nil {
			continue
		}
		name := p.Pod + "." + p.Namespace
		if p.World != world && p.World != st.World {
			late = append(late, name)
			continue
		}
		for _, t := range p.Types {
			if t.State == admin.SyncRefused {
				refused = append(refused, name)
				break
			}
		}
	}
	return late, refused
}

// applied prints an outcome; refused objects are exit code 1.
func (a *app) applied(resp admin.ApplyResponse, dry bool, done string) error {
	n := countErrors(resp.Diagnostics)
	err := a.data(resp, func() error {
		a.diagnostics(a.env.Stderr, resp.Diagnostics)
		suffix := ""
		if dry {
			suffix = " (dry run)"
		}
		for _, r := range resp.Results {
			a.printf("%s %s%s\n", refString(r), r.Action, suffix)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s; nothing was %s", plural(n, "error"), done)}
	}
	return nil
}

func countErrors(ds []admin.Diagnostic) int {
	n := 0
	for _, d := range ds {
		if d.Severity == admin.SeverityError {
			n++
		}
	}
	return n
}

func refString(r admin.Applied) string {
	name := r.Name
	if r.Namespace != "" {
		name = r.Namespace + "/" + r.Name
	}
	return strings.ToLower(r.Kind) + "/" + name
}

// readFiles reads files, folders (their YAML and JSON files, one level) and "-".
func (a *app) readFiles(names []string) ([]admin.File, error) {
	var out []admin.File
	for _, n := range names {
		if n == "-" {
			b, err := io.ReadAll(io.LimitReader(a.env.Stdin, maxFile+1))
			if err != nil {
				return nil, fmt.Errorf("standard input: %w", err)
			}
			out = append(out, admin.File{Name: "standard input", Content: string(b)})
			continue
		}
		list, err := expand(n)
		if err != nil {
			return nil, err
		}
		for _, f := range list {
			st, err := os.Stat(f)
			if err == nil && st.Size() > maxFile {
				err = fmt.Errorf("%s: %d bytes, at most %d", f, st.Size(), maxFile)
			}
			if err != nil {
				return nil, err
			}
			b, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			out = append(out, admin.File{Name: f, Content: string(b)})
		}
	}
	return out, nil
}

// expand lists the files that a name stands for.
func expand(name string) ([]string, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return []string{name}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			out = append(out, filepath.Join(name, e.Name()))
		}
	}
	if len(out) == 0 {
		return nil, withHint(fmt.Errorf("%s: no .yaml, .yml or .json file in this folder", name), "name the files, or the folder that holds them")
	}
	return out, nil
}
