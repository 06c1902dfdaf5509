package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	promType      = "text/plain; version=0.0.4; charset=utf-8"
	appTimeout    = 5 * time.Second
	maxAppMetrics = 32 << 20 // bytes taken from the application
)

// statusPages are those of Istio's agent on 15020.
func (s *Server) statusPages() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/healthz/ready", get(s.healthz))
	m.HandleFunc("/stats/prometheus", get(s.merged))
	m.HandleFunc("/metrics", get(s.merged))
	m.HandleFunc("/quitquitquit", loopbackPeer(post(s.quit)))
	m.HandleFunc("/drain", loopbackPeer(post(s.drain)))
	m.HandleFunc("/drain/quiet", get(s.quiet))
	m.HandleFunc("/debug/ndsz", loopbackPeer(get(s.ndsz)))
	s.appHealth(m)
	return m
}

func (s *Server) readyPages() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/healthz/ready", get(s.healthz))
	return m
}

func (s *Server) metricsPages() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/stats/prometheus", get(s.prometheus))
	m.HandleFunc("/healthz/ready", get(s.healthz))
	return m
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	ok, why := s.set.Healthy()
	if !ok {
		http.Error(w, "not ready: "+why, http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) prometheus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", promType)
	_ = s.set.Registry.WriteText(w) // the client went away
}

// merged is the proxy's metrics and, after them, the application's. An
// application that does not answer costs its own metrics only, and says so in a comment.
func (s *Server) merged(w http.ResponseWriter, r *http.Request) {
	s.prometheus(w, r)
	if s.set.AppMetrics == "" {
		return
	}
	if err := s.copyApp(r.Context(), w); err != nil {
		fmt.Fprintf(w, "# application metrics from %s: %q\n", s.set.AppMetrics, err.Error())
	}
}

func (s *Server) copyApp(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, appTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.set.AppMetrics, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	resp, err := appClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	bw := bufio.NewWriter(w)
	if _, err := io.Copy(bw, io.LimitReader(resp.Body, maxAppMetrics)); err != nil {
		return err
	}
	return bw.Flush()
}

// appClient keeps no connections and follows no redirects: the URL is the operator's, the answer the application's.
var appClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}
