package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/internal/version"
)

func (a *app) tagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Names that stand for revisions, to move namespaces from one to another",
		Long: `A namespace labelled istio.io/rev=TAG gets the sidecars of the revision that the
tag stands for. The tag "default" stands for istio-injection=enabled, and has the
revision check objects without the label istio.io/rev.`,
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
			in.Wait = true // until the API server can ask the revision
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
