package cli

import (
	"github.com/spf13/cobra"

	"weft.mesh/weft/internal/localhttp"
)

// requestCommand asks the control plane of this pod. The image has it as pilot-discovery too, because that is what
// Istio's users and older tools call by kubectl exec.
func (a *app) requestCommand() *cobra.Command {
	pages := localhttp.Server{Name: "the control plane", Flag: "--port", Example: "debug/syncz"}
	c := &cobra.Command{
		Use:     "request METHOD PATH",
		Short:   "In a pod of the control plane: ask for one of its pages of metrics, state and debugging",
		Example: "  kubectl exec -n weft-system deployment/weft -- pilot-discovery request GET /debug/syncz\n  weft request GET metrics",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return pages.Do(cmd.Context(), cmd.OutOrStdout(), args[0], args[1])
		},
	}
	c.Flags().IntVar(&pages.Port, "port", 15014, "port of the pages on 127.0.0.1")
	return c
}
