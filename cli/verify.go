package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/internal/version"
)

func (a *app) verifyCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:     "verify",
		Short:   "Check that everything of an install is there, served and ready; exit code 1 if not",
		Example: "  weft verify\n  weft verify --revision canary -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, was, p, err := a.recordedPlan(cmd.Context(), &o)
			if err != nil {
				return err
			}
			if was == nil {
				return withHint(fmt.Errorf("no revision %s is installed in %s", orDefault(o.revision), o.namespace), "weft install; weft status lists what is there")
			}
			checks, err := in.Verify(cmd.Context(), p)
			if err != nil {
				return kubeError(err)
			}
			return a.showChecks(checks, was)
		},
	}
	o.flags(cmd)
	a.clusterFlags(cmd)
	a.outputFlag(cmd)
	return cmd
}

func (a *app) showChecks(checks []install.Check, was *install.Recorded) error {
	bad := 0
	for _, c := range checks {
		if !c.OK {
			bad++
		}
	}
	err := a.data(checks, func() error {
		c := a.colors(a.env.Stdout)
		for _, x := range checks {
			if x.OK {
				a.printf("%s %s\n", c.green("ok  "), x.What)
			} else {
				a.printf("%s %s: %s\n", c.red("FAIL"), x.What, x.Note)
			}
		}
		if was.Version != version.Version {
			how := "weft upgrade"
			if was.Helm != "" {
				how = "helm upgrade " + was.Helm
			}
			a.printf("%s installed is weft %s, this is %s: %s\n", c.yellow("note"), was.Version, version.Version, how)
		}
		return nil
	})
	if err == nil && bad > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s of %d failed", plural(bad, "check"), len(checks))}
	}
	return err
}
