package cli

import (
	"github.com/spf13/cobra"

	"weft.mesh/weft/cli/kube"
)

// kubeOptions say which cluster the flags and the environment choose.
func (a *app) kubeOptions() kube.Options {
	return kube.Options{File: a.kubeconfig, Context: a.kubeContext, Env: a.env.Getenv("KUBECONFIG"), Home: a.env.Getenv("HOME")}
}

// clusterFlags adds the choice of a cluster to a command.
func (a *app) clusterFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.kubeconfig, "kubeconfig", "", "kubeconfig file (default $KUBECONFIG, then ~/.kube/config)")
	cmd.Flags().StringVar(&a.kubeContext, "context", "", "context of the kubeconfig (default its current one)")
}

// cluster opens the cluster; there must be one.
func (a *app) cluster() (*kube.Cluster, error) {
	c, err := kube.Open(a.kubeOptions())
	if err != nil {
		return nil, &exitError{exitNoMesh, withHint(err, "name a cluster with --kubeconfig or --context")}
	}
	return c, nil
}
