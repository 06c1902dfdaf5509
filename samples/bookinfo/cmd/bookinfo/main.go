// Command bookinfo is the whole Bookinfo sample in one program: four small services,
// and two helpers for pods.
//
//	bookinfo productpage|details|reviews|ratings   a service, on :9080
//	bookinfo client [flags] URL                    ask a URL, for machines without curl
//	bookinfo sleep                                 do nothing until told to stop
//
// The services know nothing of a mesh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	os.Exit(run(ctx, env{os.Args[1:], os.Getenv, os.Stdout, os.Stderr}))
}

// env is what the program has from outside.
type env struct {
	args   []string
	getenv func(string) string
	stdout io.Writer
	stderr io.Writer
}

const usage = `usage: bookinfo COMMAND [FLAGS]

  productpage, details, reviews, ratings    serve on :9080 (-listen changes that) until SIGTERM
  client [FLAGS] URL                        ask a URL and print the answer
  sleep                                     do nothing until SIGTERM

Services read from the environment
  SERVICE_VERSION        reviews: v1 (default), v2 or v3
  FLAKY_PERCENT          reviews, ratings: answer so many percent of the requests with 503, evenly spread
  DETAILS_HOSTNAME, REVIEWS_HOSTNAME, RATINGS_HOSTNAME                 default: details, reviews, ratings
  DETAILS_SERVICE_PORT, REVIEWS_SERVICE_PORT, RATINGS_SERVICE_PORT     default: 9080
  SERVICES_DOMAIN        put after the host names of services
  HOSTNAME, CLUSTER_NAME what reviews says about where it runs
`

// Exit codes, beyond 0 for success.
const (
	exitFailure = 1
	exitUsage   = 2
)

// run runs one command until it is done or ctx ends, and returns the exit code.
func run(ctx context.Context, e env) int {
	if len(e.args) == 0 {
		fmt.Fprint(e.stderr, usage)
		return exitUsage
	}
	command := e.args[0]
	switch command {
	case "client":
		return runClient(ctx, e)
	case "sleep":
		<-ctx.Done()
		return 0
	case "productpage", "details", "reviews", "ratings":
	case "help", "-h", "-help", "--help":
		fmt.Fprint(e.stdout, usage)
		return 0
	default:
		fmt.Fprintf(e.stderr, "bookinfo: unknown command %q\n\n%s", command, usage)
		return exitUsage
	}
	log := slog.New(slog.NewTextHandler(e.stderr, nil)).With("service", command)
	switch err := runService(ctx, e, log); {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(e.stderr, "bookinfo %s: %v\n", command, err)
		return exitUsage
	default:
		log.Error("stopped", "error", err)
		return exitFailure
	}
}
