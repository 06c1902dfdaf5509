package cli

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"weft.mesh/weft/cli/install"
)

func (a *app) uninstallCommand() *cobra.Command {
	var r install.Removal
	var yes, dry bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove a control plane from a Kubernetes cluster",
		Long: `Remove what weft install made: webhooks first, then the rest. The definitions and
the objects of their kinds stay, unless --purge is given. Pods that have a
sidecar keep it until they are restarted.`,
		Example: `  weft uninstall
  weft uninstall --revision canary
  weft uninstall --all --purge -y`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.All && r.Revision != "" {
				return &exitError{exitUsage, errors.New("--all and --revision exclude each other")}
			}
			in, err := a.installer(time.Minute)
			if err != nil {
				return err
			}
			in.DryRun = dry
			if !yes && !dry {
				if err := a.confirm(in.Cluster.Context, r); err != nil {
					return err
				}
			}
			return kubeError(in.Uninstall(cmd.Context(), r))
		},
	}
	a.clusterFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&r.Namespace, "namespace", "n", install.Namespace, "namespace of the control plane")
	f.StringVar(&r.Revision, "revision", "", "revision to remove (default \"default\")")
	f.BoolVar(&r.All, "all", false, "every revision, with what they share")
	f.BoolVar(&r.Purge, "purge", false, "the definitions too, and with them all VirtualServices, Gateways …")
	f.BoolVar(&r.Force, "force", false, "although namespaces use the revision, and others stay")
	f.BoolVar(&dry, "dry-run", false, "only say what would be deleted")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks a person; without a terminal --yes is needed.
func (a *app) confirm(kubeContext string, r install.Removal) error {
	what := "revision " + orDefault(r.Revision)
	if r.All {
		what = "every revision"
	}
	if r.Purge {
		what += " and all objects of the mesh's kinds"
	}
	if !term.IsTerminal(int(a.env.Stdin.Fd())) {
		return &exitError{exitUsage, withHint(fmt.Errorf("this removes %s from context %q", what, kubeContext), "say -y to do it")}
	}
	a.printf("Remove %s from context %q? [y/N] ", what, kubeContext)
	line, _ := bufio.NewReader(a.env.Stdin).ReadString('\n') // what cannot be read is a no
	if s := strings.ToLower(strings.TrimSpace(line)); s != "y" && s != "yes" {
		return &exitError{exitFailed, errors.New("nothing was removed")}
	}
	return nil
}
