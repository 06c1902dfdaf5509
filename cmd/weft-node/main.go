// Command weft-node is what has to touch the network of a node or a pod. capture
// redirects a pod's traffic to its proxy, as an init container; validate checks that
// the node agent has done so. Called by a container runtime (CNI_COMMAND) it is the
// CNI plugin weft-cni, as which the node agent (cmd/weft-cni) installs it on its node.
//
// It is small on purpose and knows no Kubernetes: everything it needs is a flag or a variable.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"weft.mesh/weft/internal/version"
)

func main() {
	if os.Getenv("CNI_COMMAND") != "" {
		plugin()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c := rootCommand(os.Stdout, os.Stderr, os.Getenv)
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "weft-node: "+err.Error())
		if errors.Is(err, errNotCaptured) {
			os.Exit(exitNotCaptured)
		}
		os.Exit(1)
	}
}

// getenv reads the environment; only this package does.
type getenv func(string) string

func rootCommand(stdout, stderr io.Writer, env getenv) *cobra.Command {
	v := version.Get()
	root := &cobra.Command{
		Use:           "weft-node",
		Short:         "Weft's hand in the network of pods and nodes",
		Version:       fmt.Sprintf("%s (%s, %s/%s)", v.Version, v.Go, runtime.GOOS, runtime.GOARCH),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("weft-node {{.Version}}\n")
	root.AddCommand(captureCommand(env), validateCommand())
	return root
}
