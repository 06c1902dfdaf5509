package cli

import (
	"github.com/spf13/cobra"

	"weft.mesh/weft/cli/install"
)

func (a *app) precheckCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:     "precheck",
		Short:   "Look for what would stand in the way of an install; exit code 1 if anything does",
		Example: "  weft precheck\n  weft precheck --revision canary -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, _, p, err := a.recordedPlan(cmd.Context(), &o)
			if err != nil {
				return err
			}
			return a.showFindings(in.Precheck(cmd.Context(), p))
		},
	}
	o.flags(cmd)
	a.clusterFlags(cmd)
	a.outputFlag(cmd)
	return cmd
}

func (a *app) showFindings(fs []*install.Finding) error {
	n := 0
	for _, f := range fs {
		if f.Severity == install.SeverityError {
			n++
		}
	}
	if fs == nil {
		fs = []*install.Finding{}
	}
	err := a.data(fs, func() error {
		c := a.colors(a.env.Stdout)
		for _, f := range fs {
			mark := c.yellow("warning:")
			if f.Severity == install.SeverityError {
				mark = c.red("error:")
			}
			a.printf("%s %s\n", mark, f.Error())
		}
		if len(fs) == 0 {
			a.printf("nothing stands in the way\n")
		}
		return nil
	})
	if err == nil && n > 0 {
		return &exitError{code: exitFailed}
	}
	return err
}
