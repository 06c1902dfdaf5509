// Command weft-cni is the node agent: it installs the CNI plugin weft-cni on its
// node, answers it, and mends pods that started before the plugin was there.
//
// The plugin itself is weft-node, which this program copies to the node. When its
// DaemonSet is removed it takes both the plugin and the plugin's entry away; when
// it is only replaced, they stay, and new pods wait for the next agent.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/node/cni/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c := rootCommand(os.Stdout, os.Stderr, os.Getenv)
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "weft-cni: "+err.Error())
		os.Exit(1)
	}
}

// getenv reads the environment; only this package does.
type getenv func(string) string

// options are the flags; paths are as the agent's container sees them.
type options struct {
	node, namespace, daemonSet string
	kubeconfig                 string
	plugin                     string
	binDir, confDir, confFile  string
	socket                     string
	exclude                    []string
	repair                     string
	labelKey, labelValue       string
	proc                       string
	health, metrics            string
	level                      string
}

func rootCommand(stdout, stderr io.Writer, env getenv) *cobra.Command {
	v := version.Get()
	var o options
	c := &cobra.Command{
		Use:   "weft-cni",
		Short: "Weft's node agent: redirect the traffic of pods that have no privilege for it",
		Long: "Weft's node agent: it installs the CNI plugin weft-cni on its node and keeps it there, tells the plugin which pods to redirect,\n" +
			"and mends pods that started before. It runs as a DaemonSet, which the chart makes with cni.enabled=true.",
		Args:          cobra.NoArgs,
		Version:       fmt.Sprintf("%s (%s, %s/%s)", v.Version, v.Go, runtime.GOOS, runtime.GOARCH),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var level slog.Level
			if err := level.UnmarshalText([]byte(o.level)); err != nil {
				return fmt.Errorf("--log-level %q: want debug, info, warn or error", o.level)
			}
			log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
			a, err := newNodeAgent(o, log)
			if err != nil {
				return err
			}
			return a.run(cmd.Context())
		},
	}
	c.SetOut(stdout)
	c.SetErr(stderr)
	c.SetVersionTemplate("weft-cni {{.Version}}\n")
	o.register(c, env)
	return c
}

func (o *options) register(c *cobra.Command, env getenv) {
	f := c.Flags()
	f.StringVar(&o.node, "node", env("NODE_NAME"), "name of this node (environment: NODE_NAME)")
	f.StringVar(&o.namespace, "namespace", env("POD_NAMESPACE"), "namespace of the agent (environment: POD_NAMESPACE)")
	f.StringVar(&o.daemonSet, "daemonset", "weft-cni-node", "the agent's DaemonSet; its pods' names begin so")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "outside a pod: the kubeconfig file of the cluster")
	f.StringVar(&o.plugin, "plugin", "/usr/local/bin/weft-node", "the plugin's program, to be copied to the node")
	f.StringVar(&o.binDir, "bin-dir", "/host/opt/cni/bin", "the node's folder of CNI plugins")
	f.StringVar(&o.confDir, "conf-dir", "/host/etc/cni/net.d", "the node's folder of network configurations")
	f.StringVar(&o.confFile, "conf-file", "", "the network configuration to join (default: the first by name)")
	f.StringVar(&o.socket, "socket", "/var/run/weft-cni/agent.sock", "where the plugin asks; the same path on the node and here")
	f.StringSliceVar(&o.exclude, "exclude-namespaces", []string{"kube-system"}, "namespaces whose pods the plugin leaves alone without asking")
	f.StringVar(&o.repair, "repair", string(agent.ModeRepair), "what to do with pods that started before the plugin: repair, delete, label or none")
	f.StringVar(&o.labelKey, "broken-pod-label-key", "cni.istio.io/uninitialized", "with --repair label: key of the label")
	f.StringVar(&o.labelValue, "broken-pod-label-value", "true", "with --repair label: value of the label")
	f.StringVar(&o.proc, "proc", "/host/proc", "with --repair repair: the node's /proc")
	f.StringVar(&o.health, "health-address", ":8000", "address of /healthz and /readyz")
	f.StringVar(&o.metrics, "metrics-address", ":15014", "address of /metrics")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
}

// mode reads --repair.
func (o *options) mode() (agent.Mode, error) {
	switch m := agent.Mode(o.repair); m {
	case agent.ModeRepair, agent.ModeDelete, agent.ModeLabel:
		return m, nil
	case "none":
		return agent.ModeNone, nil
	}
	return "", fmt.Errorf("--repair %q: want repair, delete, label or none", o.repair)
}
