// Command echo is the workload of the Gateway API conformance suite's mesh
// tests: a server that says what it was asked, and a client that prints the
// answer in the form that the suite reads (utils/echo/parse.go). It takes the
// command lines of the suite's manifests and tests and has the place of
// the image echo-advanced, which is not built from the suite's sources.
//
//	server --port=8080 --port=8443 --tls=8443 --grpc=7070 --tcp=9090
//	client http://echo:80/path -H name:value --method=GET --count=10
//
// The name under which it is called says which.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if filepath.Base(os.Args[0]) == "client" {
		err = runClient(ctx, os.Args[1:], os.Stdout)
	} else {
		err = runServer(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}
