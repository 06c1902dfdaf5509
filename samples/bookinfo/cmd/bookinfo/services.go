package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"weft.mesh/weft/samples/bookinfo/internal/call"
	"weft.mesh/weft/samples/bookinfo/internal/details"
	"weft.mesh/weft/samples/bookinfo/internal/productpage"
	"weft.mesh/weft/samples/bookinfo/internal/ratings"
	"weft.mesh/weft/samples/bookinfo/internal/reviews"
	"weft.mesh/weft/samples/bookinfo/internal/serve"
)

const defaultPort = "9080"

// errUsage marks a mistake in flags or environment.
var errUsage = errors.New("usage")

// runService runs the service that e.args[0] names until ctx ends.
func runService(ctx context.Context, e env, log *slog.Logger) error {
	flags := flag.NewFlagSet(e.args[0], flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	listen := flags.String("listen", ":"+defaultPort, "`address` to serve on")
	if err := flags.Parse(e.args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	client := call.NewClient(nil)
	defer client.Close()
	h, err := handler(e, client, log)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	ctx, stop := e.linger(ctx)
	defer stop()
	return serve.Run(ctx, l, h, log)
}

// lingerTime is how long a pod's callers may take to learn that it goes.
const lingerTime = 3 * time.Second

// linger is the context that a service in a cluster serves for: Kubernetes tells a program to stop at the same
// time as it tells its callers not to call it, so the program takes requests for a moment longer.
func (e env) linger(ctx context.Context) (context.Context, context.CancelFunc) {
	if e.getenv("KUBERNETES_SERVICE_HOST") == "" {
		return ctx, func() {}
	}
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lingerTime, cancel) })
	return later, func() { stop(); cancel() }
}

// handler builds the service from the environment.
func handler(e env, client *call.Client, log *slog.Logger) (http.Handler, error) {
	flaky, err := e.flaky()
	if err != nil {
		return nil, err
	}
	switch e.args[0] {
	case "details":
		return details.Handler(), nil
	case "ratings":
		return ratings.New().Handler(flaky), nil
	case "reviews":
		s, err := reviews.New(reviews.Config{
			Version: e.or("SERVICE_VERSION", "v1"),
			Pod:     e.pod(),
			Cluster: e.or("CLUSTER_NAME", "null"),
			Ratings: e.address("RATINGS", "ratings"),
			Client:  client,
		})
		if err != nil {
			return nil, fmt.Errorf("SERVICE_VERSION: %w", err)
		}
		return s.Handler(flaky), nil
	default:
		return productpage.New(productpage.Config{
			Details: e.address("DETAILS", "details"),
			Reviews: e.address("REVIEWS", "reviews"),
			Ratings: e.address("RATINGS", "ratings"),
			Client:  client,
			Pod:     e.pod(),
			Log:     log,
		}).Handler(), nil
	}
}

// or returns an environment variable, or fallback when it is empty.
func (e env) or(name, fallback string) string {
	if v := e.getenv(name); v != "" {
		return v
	}
	return fallback
}

// address returns the base URL of another service.
func (e env) address(prefix, host string) string {
	return serve.Address(e.or(prefix+"_HOSTNAME", host), e.or(prefix+"_SERVICE_PORT", defaultPort), e.getenv("SERVICES_DOMAIN"))
}

// pod returns the name of the pod, which is its host name.
func (e env) pod() string {
	if name := e.getenv("HOSTNAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// flaky returns the wrapper that FLAKY_PERCENT asks for.
func (e env) flaky() (func(http.Handler) http.Handler, error) {
	percent := 0
	if v := e.getenv("FLAKY_PERCENT"); v != "" {
		var err error
		if percent, err = strconv.Atoi(v); err != nil || percent < 0 || percent > 100 {
			return nil, fmt.Errorf("FLAKY_PERCENT %q: want a number from 0 to 100", v)
		}
	}
	return func(h http.Handler) http.Handler { return serve.Flaky(percent, h) }, nil
}
