package cli

import (
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
)

// maxReplicas of one Deployment on one machine.
const maxReplicas = 100

func (a *app) scaleCommand() *cobra.Command {
	var ns string
	var replicas int
	cmd := &cobra.Command{
		Use:     "scale DEPLOYMENT --replicas N",
		Short:   "Change how many pods a Deployment has",
		Example: "  weft scale reviews-v1 --replicas 5\n  weft scale prod/api --replicas 0",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if replicas < 0 || replicas > min(maxReplicas, math.MaxInt32) {
				return &exitError{exitUsage, fmt.Errorf("--replicas %d: want 0 to %d", replicas, maxReplicas)}
			}
			n, name := splitRef(args[0], ns)
			resp, err := a.mesh().Scale(cmd.Context(), admin.ScaleRequest{Namespace: n, Name: name, Replicas: int32(replicas)})
			if err != nil {
				return err
			}
			return a.applied(resp, false, "changed")
		},
	}
	a.namespaceFlag(cmd, &ns, "default", "namespace of the Deployment")
	cmd.Flags().IntVar(&replicas, "replicas", 0, "wanted number of pods")
	_ = cmd.MarkFlagRequired("replicas")
	cmd.ValidArgsFunction = a.completeDeployments()
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

func (a *app) restartCommand() *cobra.Command {
	var ns, container string
	var pod, hot bool
	cmd := &cobra.Command{
		Use:   "restart DEPLOYMENT | restart --pod POD [-c CONTAINER [--hot]]",
		Short: "Replace a Deployment's pods one by one, or restart a pod's container",
		Example: `  weft restart reviews-v1
  weft restart --pod productpage-v1 -c istio-proxy
  weft restart --pod productpage-v1 -c istio-proxy --hot   # the new proxy takes over the sockets of the old one
  weft restart reviews-v1 -o json`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, name := splitRef(args[0], ns)
			req := admin.RestartRequest{Namespace: n, Deployment: name}
			if pod {
				p, err := a.findPod(cmd.Context(), ns, args[0])
				if err != nil {
					return err
				}
				req = admin.RestartRequest{Namespace: p.ns, Pod: p.name, Container: container, Hot: hot}
			} else if container != "" {
				return &exitError{exitUsage, fmt.Errorf("-c needs --pod")}
			} else if hot {
				return &exitError{exitUsage, fmt.Errorf("--hot needs --pod and -c istio-proxy")}
			}
			if err := a.mesh().Restart(cmd.Context(), req); err != nil {
				return err
			}
			return a.data(req, func() error {
				if hot {
					a.printf("%s: a new proxy has taken over, the old one drains\n", args[0])
				} else {
					a.printf("%s restarts\n", args[0])
				}
				return nil
			})
		},
	}
	a.namespaceFlag(cmd, &ns, "default", "namespace")
	cmd.Flags().BoolVar(&pod, "pod", false, "the name is a pod's")
	cmd.Flags().StringVarP(&container, "container", "c", "", "with --pod: only this container")
	cmd.Flags().BoolVar(&hot, "hot", false, "with -c istio-proxy: refuse no connection and break no request; what runs long goes on in the old proxy for a minute at most")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if pod {
			return a.completePods(cmd, args, word)
		}
		return a.completeDeployments()(cmd, args, word)
	}
	_ = cmd.RegisterFlagCompletionFunc("container", a.completeContainers())
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Join tokens for workloads that start outside the local runtime",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  showHelp,
	}
	var ns, sa string
	req := admin.TokenRequest{}
	create := &cobra.Command{
		Use:     "create",
		Short:   "Make a single-use join token for one identity; it is shown once",
		Example: "  weft token create -n prod --service-account api --ttl 5m",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			req.Namespace, req.ServiceAccount = ns, sa
			resp, err := a.mesh().CreateToken(c.Context(), req)
			if err != nil {
				return err
			}
			return a.data(resp, func() error { a.printf("%s\n", resp.Token); return nil })
		},
	}
	a.namespaceFlag(create, &ns, "default", "namespace of the identity")
	create.Flags().StringVar(&sa, "service-account", "default", "service account of the identity")
	create.Flags().DurationVar(&req.TTL, "ttl", 0, "how long it may be used (default 10m, at most 24h)")
	a.outputFlag(create)
	cmd.AddCommand(a.eitherMesh(create))
	return cmd
}
