// Package localhttp is a command line's way to an HTTP server of the same pod: what Istio's users call as
// "pilot-agent request" in a sidecar and as "pilot-discovery request" in the control plane.
//
// It speaks to the loopback address only, ends after [Time], and reads at most [MaxAnswer] bytes.
package localhttp

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
)

// Bounds of a request.
const (
	Time      = 2 * time.Minute // a CPU profile takes 30 s
	MaxAnswer = 1 << 30         // bytes; a dump of a large mesh has some hundred million
)

// Server is who is asked.
type Server struct {
	Name    string // for errors: "the admin interface"
	Port    int    // on 127.0.0.1
	Flag    string // with which the user names another port: "--debug-port"
	Example string // a path that there is: "config_dump"
}

// Do asks for a path, with or without a slash at its beginning, and writes the answer's body to out. A status that is no success
// is an error, after the body. method is GET or POST, in any case.
func (s Server) Do(ctx context.Context, out io.Writer, method, target string) error {
	if s.Port < 1 || s.Port > 65535 {
		return fmt.Errorf("%s %d: want a port", s.Flag, s.Port)
	}
	method = strings.ToUpper(method)
	if method != http.MethodGet && method != http.MethodPost {
		return fmt.Errorf("method %q: want GET or POST", method)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	u, err := url.Parse("http://" + addr + "/" + strings.TrimPrefix(target, "/"))
	if err != nil || u.Host != addr {
		return fmt.Errorf("path %q: want one of %s, as %s", target, s.Name, s.Example)
	}
	ctx, cancel := context.WithTimeout(ctx, Time)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return fmt.Errorf("path %q: %w", target, err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask %s: %w (does it run, and with this %s?)", s.Name, err, s.Flag)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(out, io.LimitReader(resp.Body, MaxAnswer)); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	} else if n == MaxAnswer {
		return fmt.Errorf("the answer is cut off after %d bytes", n)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, u.RequestURI(), resp.Status)
	}
	return nil
}
