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
	"weft.mesh/weft/internal/version"
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

func (a *app) precheckCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:     "precheck",
		Short:   "Look for what would stand in the way of an install; exit code 1 if anything does",
		Example: "  weft precheck\n  weft precheck --revision canary -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := a.installer(time.Minute)
			if err != nil {
				return err
			}
			was, err := in.Recorded(cmd.Context(), o.namespace, o.revision)
			if err != nil {
				return kubeError(err)
			}
			p, err := o.plan("", was)
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

func (a *app) verifyCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:     "verify",
		Short:   "Check that everything of an install is there, served and ready; exit code 1 if not",
		Example: "  weft verify\n  weft verify --revision canary -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := a.installer(time.Minute)
			if err != nil {
				return err
			}
			was, err := in.Recorded(cmd.Context(), o.namespace, o.revision)
			if err != nil {
				return kubeError(err)
			}
			if was == nil {
				return withHint(fmt.Errorf("no revision %s was installed in %s by weft install", orDefault(o.revision), o.namespace), "weft install")
			}
			p, err := o.plan("", was)
			if err != nil {
				return err
			}
			checks, err := in.Verify(cmd.Context(), p)
			if err != nil {
				return kubeError(err)
			}
			return a.showChecks(checks, was.Version)
		},
	}
	o.flags(cmd)
	a.clusterFlags(cmd)
	a.outputFlag(cmd)
	return cmd
}

func (a *app) showChecks(checks []install.Check, installed string) error {
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
		if installed != version.Version {
			a.printf("%s installed is weft %s, this is %s: weft upgrade\n", c.yellow("note"), installed, version.Version)
		}
		return nil
	})
	if err == nil && bad > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s of %d failed", plural(bad, "check"), len(checks))}
	}
	return err
}

func (a *app) tagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Names that stand for revisions, to move namespaces from one to another",
		Long: `A namespace labelled istio.io/rev=TAG gets the sidecars of the revision that the
tag stands for. The tag "default" stands for istio-injection=enabled.`,
		Example: `  weft tag set prod --revision v1
  weft tag set prod --revision v2 --overwrite
  weft tag list`,
		Args: usageArgs(cobra.NoArgs),
		RunE: showHelp,
	}
	cmd.AddCommand(a.tagSetCommand(), a.tagListCommand(), a.tagRemoveCommand())
	return cmd
}

func (a *app) tagSetCommand() *cobra.Command {
	var ns, revision string
	var overwrite bool
	cmd := &cobra.Command{
		Use:     "set TAG --revision REVISION",
		Short:   "Let a tag stand for a revision",
		Example: "  weft tag set prod --revision v2 --overwrite",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := a.installer(time.Minute)
			if err != nil {
				return err
			}
			return kubeError(in.SetTag(cmd.Context(), install.Config{Namespace: ns, Version: version.Version}, args[0], revision, overwrite))
		},
	}
	a.clusterFlags(cmd)
	cmd.Flags().StringVarP(&ns, "namespace", "n", install.Namespace, "namespace of the control plane")
	cmd.Flags().StringVar(&revision, "revision", "", "the revision")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "move a tag that stands for another revision")
	_ = cmd.MarkFlagRequired("revision")
	return cmd
}

func (a *app) tagListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List tags, the revisions that they stand for, and who uses them",
		Example: "  weft tag list -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := a.installer(time.Minute)
			if err != nil {
				return err
			}
			tags, err := in.Tags(cmd.Context())
			if err != nil {
				return kubeError(err)
			}
			return a.data(tags, func() error {
				t := newTable("TAG", "REVISION", "NAMESPACES")
				for _, x := range tags {
					t.add(x.Name, x.Revision, orDash(strings.Join(x.Namespaces, ", ")))
				}
				return t.write(a.out(), a.colors(a.env.Stdout))
			})
		},
	}
	a.clusterFlags(cmd)
	a.outputFlag(cmd)
	return cmd
}

func (a *app) tagRemoveCommand() *cobra.Command {
	var ns string
	var force bool
	cmd := &cobra.Command{
		Use:     "remove TAG",
		Short:   "Remove a tag that no namespace uses",
		Example: "  weft tag remove prod",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := a.installer(time.Minute)
			if err != nil {
				return err
			}
			return kubeError(in.RemoveTag(cmd.Context(), ns, args[0], force))
		},
	}
	a.clusterFlags(cmd)
	cmd.Flags().StringVarP(&ns, "namespace", "n", install.Namespace, "namespace of the control plane")
	cmd.Flags().BoolVar(&force, "force", false, "although namespaces use it")
	return cmd
}
