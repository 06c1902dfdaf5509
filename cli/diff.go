package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
)

func (a *app) diffCommand() *cobra.Command {
	var files []string
	var ns string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change; exit code 1 if anything would",
		Example: `  weft diff -f virtual-service.yaml
  weft diff -f ./config -o json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fs, err := a.readFiles(files)
			if err != nil {
				return err
			}
			if ds := unsendable(fs); len(ds) > 0 {
				return a.showDiff(admin.DiffResponse{Diagnostics: ds})
			}
			resp, err := a.mesh().Diff(cmd.Context(), admin.ApplyRequest{Files: fs, Namespace: ns, DryRun: true})
			if err != nil {
				return err
			}
			return a.showDiff(resp)
		},
	}
	cmd.Flags().StringSliceVarP(&files, "filename", "f", nil, "file, folder or - for standard input; may be repeated")
	a.namespaceFlag(cmd, &ns, "default", "namespace of objects that name none")
	_ = cmd.MarkFlagRequired("filename")
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

func (a *app) showDiff(resp admin.DiffResponse) error {
	changed := 0
	for _, ch := range resp.Changes {
		if ch.Action != admin.ActionUnchanged {
			changed++
		}
	}
	err := a.data(resp, func() error {
		a.diagnostics(a.env.Stderr, resp.Diagnostics)
		c := a.colors(a.env.Stdout)
		for _, ch := range resp.Changes {
			if ch.Action == admin.ActionUnchanged {
				continue
			}
			a.printf("%s\n", c.bold(refString(ch.Applied)+" "+string(ch.Action)))
			for _, l := range lineDiff(ch.Before, ch.After) {
				switch l[0] {
				case '-':
					l = c.red(l)
				case '+':
					l = c.green(l)
				}
				a.printf("%s\n", l)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n := countErrors(resp.Diagnostics); n > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s; apply would store nothing", plural(n, "error"))}
	}
	if changed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// context lines around a change.
const diffContext = 3

// lineDiff is a unified diff without headers: lines begin with ' ', '-' or
// '+', and "…" stands for what is equal on both sides and far from a change.
func lineDiff(before, after string) []string {
	a, b := lines(before), lines(after)
	full := align(a, b)
	keep := make([]bool, len(full))
	for i, l := range full {
		if l[0] == ' ' {
			continue
		}
		for j := max(0, i-diffContext); j <= min(len(full)-1, i+diffContext); j++ {
			keep[j] = true
		}
	}
	var out []string
	for i, l := range full {
		if keep[i] {
			out = append(out, l)
		} else if i == 0 || keep[i-1] {
			out = append(out, " …")
		}
	}
	return out
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// align aligns two texts by their longest common subsequence. Objects have
// some hundred lines, so the quadratic table is small.
func align(a, b []string) []string {
	lcs := make([][]int32, len(a)+1)
	for i := range lcs {
		lcs[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				lcs[i][j] = lcs[i+1][j+1] + 1
			} else {
				lcs[i][j] = max(lcs[i+1][j], lcs[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, " "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && lcs[i+1][j] >= lcs[i][j+1]:
			out = append(out, "-"+a[i])
			i++
		default:
			out = append(out, "+"+b[j])
			j++
		}
	}
	return out
}
