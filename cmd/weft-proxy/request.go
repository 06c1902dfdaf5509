package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/proxy/server"
)

// Bounds of a request to the admin interface.
const (
	requestTime = 2 * time.Minute // a CPU profile takes 30 s
	maxAnswer   = 1 << 30         // bytes; a dump of a large mesh has some hundred million
)

// requestCommand asks the admin interface of this pod's proxy. The images have it as pilot-agent too, because that is
// what Istio's users call by kubectl exec.
func requestCommand() *cobra.Command {
	var port int
	c := &cobra.Command{
		Use:     "request METHOD PATH",
		Short:   "Ask the admin interface of the proxy of this pod",
		Example: "  kubectl exec POD -c istio-proxy -- pilot-agent request GET config_dump\n  weft-proxy request POST 'logging?level=debug'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if port < 1 || port > 65535 {
				return fmt.Errorf("--debug-port %d: want a port", port)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), requestTime)
			defer cancel()
			return request(ctx, cmd.OutOrStdout(), strings.ToUpper(args[0]), net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), args[1])
		},
	}
	c.Flags().IntVar(&port, "debug-port", server.AdminPort, "port of the admin interface on 127.0.0.1")
	return c
}

// request writes the answer's body to out. A status that is no success is an error, after the body.
func request(ctx context.Context, out io.Writer, method, addr, target string) error {
	if method != http.MethodGet && method != http.MethodPost {
		return fmt.Errorf("method %q: want GET or POST", method)
	}
	u, err := url.Parse("http://" + addr + "/" + strings.TrimPrefix(target, "/"))
	if err != nil || u.Host != addr {
		return fmt.Errorf("path %q: want one of the admin interface, as config_dump", target)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return fmt.Errorf("path %q: %w", target, err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask the admin interface: %w (does the proxy run, and with this --debug-port?)", err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(out, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	} else if n == maxAnswer {
		return fmt.Errorf("the answer is cut off after %d bytes", n)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, u.RequestURI(), resp.Status)
	}
	return nil
}
