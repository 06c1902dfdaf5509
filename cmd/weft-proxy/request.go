package main

import (
	"github.com/spf13/cobra"

	"weft.mesh/weft/internal/localhttp"
	"weft.mesh/weft/proxy/server"
)

// requestCommand asks the admin interface of this pod's proxy. The images have it as pilot-agent too, because that is
// what Istio's users call by kubectl exec.
func requestCommand() *cobra.Command {
	admin := localhttp.Server{Name: "the admin interface", Flag: "--debug-port", Example: "config_dump"}
	c := &cobra.Command{
		Use:     "request METHOD PATH",
		Short:   "Ask the admin interface of the proxy of this pod",
		Example: "  kubectl exec POD -c istio-proxy -- pilot-agent request GET config_dump\n  weft-proxy request POST 'logging?level=debug'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return admin.Do(cmd.Context(), cmd.OutOrStdout(), args[0], args[1])
		},
	}
	c.Flags().IntVar(&admin.Port, "debug-port", server.AdminPort, "port of the admin interface on 127.0.0.1")
	return c
}
