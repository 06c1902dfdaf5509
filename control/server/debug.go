package server

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"weft.mesh/weft/internal/version"
)

// debugPage is one page of /debug/, by Istio's name where it has it.
type debugPage struct {
	name, help string
	handler    http.HandlerFunc
}

// debugPages are what 15014 shows to loopback callers, and 15012 to who has the right token (see debugStream).
func (s *Server) debugPages() []debugPage {
	return []debugPage{
		{"syncz", "sync state of every proxy: ?namespace=", s.syncz},
		{"adsz", "connected proxies", s.adsz},
		{"connections", "connected proxies", s.adsz},
		{"configz", "all configuration objects; Secrets without their values", s.configz},
		{"registryz", "all services", s.registryz},
		{"endpointShardz", "endpoints by service and namespace", s.endpointz},
		{"endpointz", "the same", s.endpointz},
		{"config_dump", "resources of one proxy, without keys: ?proxyID=<pod>.<namespace>", s.configDump},
		{"edsz", "endpoints of one proxy: ?proxyID=<pod>.<namespace>", s.edsz},
		{"ndsz", "names that one proxy answers DNS queries from: ?proxyID=<pod>.<namespace>", s.ndsz},
	}
}

// debugMux has the pages of debugPages and a list of them.
func (s *Server) debugMux() *http.ServeMux {
	mux := http.NewServeMux()
	list := []map[string]string{}
	for _, p := range s.debugPages() {
		mux.HandleFunc("GET /debug/"+p.name, p.handler)
		list = append(list, map[string]string{"name": p.name, "help": p.help})
	}
	mux.HandleFunc("GET /debug/list", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, list) })
	mux.HandleFunc("GET /debug/{$}", func(w http.ResponseWriter, _ *http.Request) {
		for _, p := range list {
			fmt.Fprintf(w, "%-28s %s\n", "/debug/"+p["name"], p["help"])
		}
		fmt.Fprintf(w, "%-28s %s\n", "/debug/pprof/", "Go profiles (loopback callers only)")
	})
	return mux
}

// httpHandler serves 15014: metrics, readiness, the version, and debug pages. Debug pages
// show configuration, so they answer loopback callers only.
func (s *Server) httpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.handler())
	ready := func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() || s.gate.closed() {
			http.Error(w, "no World is served yet: sources are still being read", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	}
	mux.HandleFunc("GET /ready", ready)
	mux.HandleFunc("GET /healthz/ready", ready)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, versionText()) })
	debug := func(pattern string, h http.HandlerFunc) { mux.Handle("GET "+pattern, loopback(h)) }
	s.remote(debug)
	debug("/debug/", s.debugMux().ServeHTTP)
	debug("/debug/pprof/", pprof.Index)
	debug("/debug/pprof/profile", pprof.Profile)
	debug("/debug/pprof/trace", pprof.Trace)
	return mux
}

// versionText is the version as Istio's control plane says it: version, commit and state of the build, the last of
// which is the product's name here. istioctl and Kiali take it apart.
func versionText() string {
	v := version.Get()
	return v.Version + "-" + cmp.Or(v.Commit, "unknown") + "-Weft"
}

// loopback refuses callers from elsewhere, and names that a browser was
// tricked into (DNS rebinding).
func loopback(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.RemoteAddr) || !isLocalHost(r.Host) {
			http.Error(w, "debug pages answer loopback callers only", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) adsz(w http.ResponseWriter, _ *http.Request) {
	type conn struct {
		ID        string    `json:"connectionId"`
		Connected time.Time `json:"connectedAt"`
		Identity  string    `json:"identity"`
		World     string    `json:"world"`
	}
	out := struct {
		Total   int    `json:"totalClients"`
		Clients []conn `json:"clients"`
	}{}
	for _, p := range s.tracker.Proxies() {
		if p.Lost == nil {
			out.Clients = append(out.Clients, conn{p.ID, p.Connected, p.Identity, p.World})
		}
	}
	out.Total = len(out.Clients)
	writeJSON(w, http.StatusOK, out)
}
