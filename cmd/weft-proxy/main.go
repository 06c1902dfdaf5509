// Command weft-proxy is the data plane: a sidecar beside a workload, or a gateway.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "weft-proxy: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	cmd := rootCommand(os.Stdout, os.Stderr, os.Getenv, os.Environ()...)
	cmd.SetArgs(args)
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	go signals(stop, newSuccessor(args, os.Stdout, os.Stderr)) // ends with the process
	return cmd.ExecuteContext(ctx)
}

// signals drains on the first SIGTERM or SIGINT and ends the process on the second. SIGUSR2 starts a successor.
func signals(stop context.CancelCauseFunc, next *successor) {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
	ending := false
	for s := range c {
		switch {
		case s == syscall.SIGUSR2:
			next.start()
		case !ending:
			ending = true
			stop(fmt.Errorf("%s", s))
		default:
			fmt.Fprintln(os.Stderr, "weft-proxy: second signal, exiting at once")
			os.Exit(exitCode(s))
		}
	}
}

// exitCode is the shell's for a signal.
func exitCode(s os.Signal) int {
	var n syscall.Signal
	if v, ok := s.(syscall.Signal); ok {
		n = v
	}
	return 128 + int(n)
}
