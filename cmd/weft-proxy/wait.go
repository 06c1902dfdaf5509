package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/proxy/server"
)

// maxReason is how much of an answer that is no success is shown.
const maxReason = 1 << 10

// waitCommand is for postStart of the classic sidecar: kubelet starts the next container when it ended.
func waitCommand() *cobra.Command {
	var url string
	var timeout, period, request time.Duration
	c := &cobra.Command{
		Use:     "wait",
		Short:   "Wait until the proxy of this pod is ready",
		Example: "  weft-proxy wait --timeout 2m",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 || period <= 0 || request <= 0 {
				return errors.New("--timeout, --period and --request-timeout: want more than 0")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			var last error
			for {
				if last = ask(ctx, http.MethodGet, url, request); last == nil {
					return nil
				}
				select {
				case <-ctx.Done():
					return fmt.Errorf("the proxy is not ready after %v: %w", timeout, last)
				case <-time.After(period):
				}
			}
		},
	}
	f := c.Flags()
	f.StringVar(&url, "url", "http://127.0.0.1:"+strconv.Itoa(server.ReadyPort)+"/healthz/ready", "what answers 200 when the proxy is ready")
	f.DurationVar(&timeout, "timeout", time.Minute, "fail after this time")
	f.DurationVar(&period, "period", 500*time.Millisecond, "time between questions")
	f.DurationVar(&request, "request-timeout", 500*time.Millisecond, "how long one answer may take")
	return c
}

// drainCommand is for preStop of the native sidecar, which kubelet calls when the pod begins to end: long before SIGTERM, which
// follows the application's end. And of gateways, which have no application: there SIGTERM follows when nobody calls any more.
func drainCommand() *cobra.Command {
	var port int
	var quiet, most time.Duration
	c := &cobra.Command{
		Use:     "drain",
		Short:   "Tell the proxy of this pod to end its connections; it goes on serving",
		Example: "  weft-proxy drain\n  weft-proxy drain --quiet 3s --most 50s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quiet < 0 || most < 0 || most > 0 && quiet == 0 {
				return fmt.Errorf("--quiet %v, --most %v: want more than 0, and --most only with --quiet, for example --quiet 3s --most 50s", quiet, most)
			}
			status := "http://127.0.0.1:" + strconv.Itoa(port)
			err := ask(cmd.Context(), http.MethodPost, status+"/drain", 5*time.Second)
			if err != nil || quiet == 0 {
				return err
			}
			most = max(most, quiet)
			return ask(cmd.Context(), http.MethodGet, fmt.Sprintf("%s/drain/quiet?quiet=%v&most=%v", status, quiet, most), most+5*time.Second)
		},
	}
	c.Flags().IntVar(&port, "status-port", server.StatusPort, "port of the proxy's status")
	c.Flags().DurationVar(&quiet, "quiet", 0, "and wait until nothing new came for so long (0: do not wait)")
	c.Flags().DurationVar(&most, "most", 0, "wait no longer than this (default: --quiet)")
	return c
}

// localClient keeps no connections: the proxy that is asked may be about to end.
var localClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func ask(ctx context.Context, method, url string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	resp, err := localClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: status %d: %.200s", method, url, resp.StatusCode, b)
	}
	return nil
}
