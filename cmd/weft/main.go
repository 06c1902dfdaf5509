// Command weft is the mesh's control plane, local runtime and command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"weft.mesh/weft/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, cli.Environ{
		Args:    os.Args,
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Getenv:  os.Getenv,
		Environ: os.Environ(),
	})
	stop()
	os.Exit(code)
}
