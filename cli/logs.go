package cli

import (
	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin/client"
)

func (a *app) logsCommand() *cobra.Command {
	var ns, container string
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use:   "logs POD",
		Short: "Print what a pod's container writes; -c istio-proxy is its sidecar's access log",
		Example: `  weft logs productpage-v1
  weft logs -f reviews-v2 -c istio-proxy
  weft logs --tail 20 default/ratings-v1`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.findPod(cmd.Context(), ns, args[0])
			if err != nil {
				return err
			}
			o := client.LogOptions{Namespace: p.ns, Pod: p.name, Container: container, Follow: follow, Tail: tail}
			return a.mesh().Logs(cmd.Context(), o, a.out())
		},
	}
	a.namespaceFlag(cmd, &ns, "default", "namespace of the pod")
	cmd.Flags().StringVarP(&container, "container", "c", "", "container (default the first that is not the sidecar)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing until Ctrl-C")
	cmd.Flags().IntVar(&tail, "tail", client.AllLines, "only the last lines (default all that is kept)")
	cmd.ValidArgsFunction = a.completePods
	_ = cmd.RegisterFlagCompletionFunc("container", a.completeContainers())
	return a.eitherMesh(cmd)
}
