// Command istioctl is Istio's own, all of it, from its Go module: the tests hold what Weft answers to Istio's tools against it.
package main

import (
	"fmt"
	"os"

	"istio.io/istio/istioctl/cmd"
)

func main() {
	if err := cmd.ConfigAndEnvProcessing(); err != nil {
		fmt.Fprintln(os.Stderr, "istioctl:", err)
		os.Exit(cmd.GetExitCode(err))
	}
	if err := cmd.GetRootCmd(os.Args[1:]).Execute(); err != nil {
		os.Exit(cmd.GetExitCode(err))
	}
}
