package cli

import (
	"errors"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
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
			q := url.Values{"namespace": {p.ns}, "pod": {p.name}, "follow": {strconv.FormatBool(follow)}}
			if container != "" {
				q.Set("container", container)
			}
			if tail >= 0 {
				q.Set("tail", strconv.Itoa(tail))
			}
			body, err := a.runtime().stream(cmd.Context(), admin.PathLogs, q)
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(a.out(), body)
			if cmd.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil // Ctrl-C, or the mesh ended
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&ns, "namespace", "n", "default", "namespace of the pod")
	cmd.Flags().StringVarP(&container, "container", "c", "", "container (default the first that is not the sidecar)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing until Ctrl-C")
	cmd.Flags().IntVar(&tail, "tail", -1, "only the last lines (default all that is kept)")
	cmd.ValidArgsFunction = a.completePods
	return cmd
}
