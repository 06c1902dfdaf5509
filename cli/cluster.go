package cli

import (
	"context"

	"github.com/spf13/cobra"

	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/cli/kube"
	"weft.mesh/weft/cli/kubemesh"
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

// eitherMesh makes a command one for a local mesh and for one on a cluster: it
// has the flags of both, and chooses before it runs.
func (a *app) eitherMesh(cmd *cobra.Command) *cobra.Command {
	a.clusterFlags(cmd)
	cmd.Flags().StringVar(&a.meshNamespace, "mesh-namespace", install.Namespace, "on a cluster: namespace of the control plane")
	pre := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if pre != nil {
			if err := pre(cmd, args); err != nil {
				return err
			}
		}
		return a.choose(cmd.Context(), cmd.Flags().Changed("state-dir"))
	}
	return cmd
}

// choose decides between the local mesh and a cluster:
//
//  1. --kubeconfig or --context: the cluster.
//  2. --state-dir or $WEFT_STATE_DIR: the local mesh.
//  3. a local mesh runs: that one.
//  4. a kubeconfig with a current context: its cluster.
//  5. the local mesh, which does not run.
func (a *app) choose(ctx context.Context, stateDir bool) error {
	named := a.kubeconfig != "" || a.kubeContext != ""
	switch {
	case named:
	case stateDir, a.env.Getenv("WEFT_STATE_DIR") != "", a.mesh().Reachable(ctx), !a.kubeOptions().Exists():
		return nil
	}
	c, err := a.cluster()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.close()
	a.onCluster = &kubemesh.Mesh{Cluster: c, Namespace: a.meshNamespace}
	a.client, a.of = a.onCluster.Client(), a.stateDir
	return nil
}
