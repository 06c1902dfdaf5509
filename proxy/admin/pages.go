package admin

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// page is one admin path.
type page struct {
	path    string
	help    string
	handler http.HandlerFunc
	post    bool
}

func (s *Server) pages() []page {
	return []page{
		{"/certs", "print certs on machine", s.certs, false},
		{"/clusters", "upstream cluster status (?format=json)", s.clusters, false},
		{"/config_dump", "dump current configs (?include_eds, ?resource=, ?name_regex=, ?mask=)", s.configDump, false},
		{"/debug/ndsz", "the names that DNS queries of the pod are answered from", s.ndsz, false},
		{"/debug/pprof/", "profiles of the process", pprof.Index, false},
		{"/drain_listeners", "drain listeners (?graceful: the same, draining is always graceful)", s.drain, true},
		{"/listeners", "print listener info (?format=json)", s.listeners, false},
		{"/logging", "query the log level; POST ?level= changes it", s.logging, false},
		{"/memory", "print current allocation/heap usage", s.memory, false},
		{"/quitquitquit", "exit the server", s.quit, true},
		{"/ready", "print server state, return 200 if LIVE, otherwise return 503", s.ready, false},
		{"/server_info", "print server version/status information", s.serverInfo, false},
		{"/stats", "print server stats (?filter=regex, ?format=json|prometheus, ?usedonly)", s.stats, false},
		{"/stats/prometheus", "print server stats in prometheus format", s.prometheus, false},
	}
}

func (s *Server) adminPages() http.Handler {
	m := http.NewServeMux()
	for _, p := range s.pages() {
		switch {
		case p.post:
			m.HandleFunc(p.path, post(p.handler))
		case p.path == "/logging": // both
			m.HandleFunc(p.path, p.handler)
		default:
			m.HandleFunc(p.path, get(p.handler))
		}
	}
	m.HandleFunc("/debug/pprof/profile", get(pprof.Profile))
	m.HandleFunc("/debug/pprof/trace", get(pprof.Trace))
	m.HandleFunc("/debug/pprof/cmdline", get(pprof.Cmdline))
	m.HandleFunc("/debug/pprof/symbol", get(pprof.Symbol))
	m.HandleFunc("/{$}", get(s.home))
	m.HandleFunc("/help", get(s.help))
	m.HandleFunc("/", s.notFound)
	return m
}

func (s *Server) home(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	b.WriteString("<!doctype html><title>weft-proxy admin</title><style>body{font:15px/1.6 system-ui;margin:2rem}td{padding-right:2rem}</style><h1>weft-proxy</h1><table>\n")
	for _, p := range s.pages() {
		name := html.EscapeString(strings.TrimPrefix(p.path, "/"))
		if p.post {
			fmt.Fprintf(&b, "<tr><td><form method=post action=%q><button>%s</button></form><td>%s\n", p.path, name, html.EscapeString(p.help))
			continue
		}
		fmt.Fprintf(&b, "<tr><td><a href=%q>%s</a><td>%s\n", p.path, name, html.EscapeString(p.help))
	}
	b.WriteString("</table>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	_, _ = w.Write([]byte(b.String()))
}

func (s *Server) help(w http.ResponseWriter, _ *http.Request) { text(w, s.helpText()) }

func (s *Server) helpText() string {
	var b strings.Builder
	b.WriteString("admin commands are:\n  /: Admin home page\n")
	for _, p := range s.pages() {
		method := ""
		if p.post {
			method = " (POST)"
		}
		fmt.Fprintf(&b, "  %s: %s%s\n", p.path, p.help, method)
	}
	return b.String()
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintf(w, "no page %q here\n%s", r.URL.Path, s.helpText())
}

// ndsz is the name table, as Istio's agent shows it.
func (s *Server) ndsz(w http.ResponseWriter, _ *http.Request) {
	if s.set.Names == nil {
		http.Error(w, "DNS queries of the pod do not come here: ISTIO_META_DNS_CAPTURE is not true", http.StatusNotFound)
		return
	}
	table := s.set.Names()
	if table == nil {
		http.Error(w, "no name table from the control plane yet", http.StatusNotFound)
		return
	}
	writeJSON(w, map[string]any{"table": table})
}

func (s *Server) drain(w http.ResponseWriter, _ *http.Request) {
	s.set.Drain()
	text(w, "OK\n")
}

func (s *Server) quit(w http.ResponseWriter, _ *http.Request) {
	text(w, "OK\n")
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	s.set.Quit()
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	state := s.set.State()
	if state != "LIVE" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, state)
}

// levels are Envoy's names for log levels.
var levels = map[string]slog.Level{
	"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn,
	"error": slog.LevelError, "critical": slog.LevelError + 4, "off": slog.LevelError + 8,
}

// logger is the name of the proxy's one logger.
const logger = "weft-proxy"

// ParseLevel reads a log level by Envoy's names.
func ParseLevel(s string) (slog.Level, error) {
	l, ok := levels[strings.ToLower(s)]
	if !ok {
		return 0, fmt.Errorf("log level %q: want trace, debug, info, warning, error, critical or off", s)
	}
	return l, nil
}

func (s *Server) logging(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if len(q) > 0 || r.Method == http.MethodPost {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "Method Not Allowed: changing the level needs POST", http.StatusMethodNotAllowed)
			return
		}
		// All loggers, or the one that there is.
		if level := q.Get("level") + q.Get(logger); level != "" {
			l, err := ParseLevel(level)
			if err != nil || len(q) > 1 {
				http.Error(w, "usage: /logging?level=<level>", http.StatusBadRequest)
				return
			}
			s.set.Level.Set(l)
		} else if len(q) > 0 {
			http.Error(w, "usage: /logging?level=<level>; there is one logger, "+logger, http.StatusBadRequest)
			return
		}
	}
	now := s.set.Level.Level().String()
	for _, name := range []string{"trace", "debug", "info", "warning", "error", "critical", "off"} {
		if levels[name] == s.set.Level.Level() {
			now = name
		}
	}
	text(w, "active loggers:\n  "+logger+": "+now+"\n")
}

func (s *Server) memory(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	str := func(n uint64) string { return fmt.Sprint(n) } // 64 bits are strings in protobuf's JSON
	writeJSON(w, map[string]string{
		"allocated": str(m.HeapAlloc), "heap_size": str(m.HeapSys), "pageheap_unmapped": str(m.HeapReleased),
		"pageheap_free": str(m.HeapIdle - m.HeapReleased), "total_thread_cache": "0", "total_physical_bytes": str(m.Sys - m.HeapReleased),
	})
}

func (s *Server) serverInfo(w http.ResponseWriter, _ *http.Request) {
	i := s.set.Info()
	if i.FirstStarted.IsZero() {
		i.FirstStarted = i.Started
	}
	if i.HotRestart == "" {
		i.HotRestart = "disabled"
	}
	since := func(t time.Time) string { return fmt.Sprintf("%ds", int64(time.Since(t).Seconds())) }
	writeJSON(w, map[string]any{
		"version": i.Version, "state": s.set.State(), "uptime_current_epoch": since(i.Started), "uptime_all_epochs": since(i.FirstStarted),
		"hot_restart_version": i.HotRestart, "node": map[string]string{"id": i.NodeID, "cluster": i.Cluster, "user_agent_name": "weft-proxy"},
		"command_line_options": map[string]any{"service_node": i.NodeID, "service_cluster": i.Cluster, "concurrency": runtime.GOMAXPROCS(0), "restart_epoch": i.Epoch},
		"weft":                 map[string]any{"role": i.Role, "pid": os.Getpid(), "control_plane": i.Config},
	})
}

func (s *Server) listeners(w http.ResponseWriter, r *http.Request) {
	ls := slices.Clone(s.set.Listeners())
	slices.SortFunc(ls, func(a, b Listener) int { return strings.Compare(a.Name, b.Name) })
	if wantsJSON(r) {
		out := []any{}
		for _, l := range ls {
			out = append(out, map[string]any{"name": l.Name, "local_address": map[string]any{
				"socket_address": map[string]any{"address": l.Address.Addr().String(), "port_value": l.Address.Port()}}})
		}
		writeJSON(w, map[string]any{"listener_statuses": out})
		return
	}
	var b strings.Builder
	for _, l := range ls {
		fmt.Fprintf(&b, "%s::%s\n", l.Name, l.Address)
	}
	text(w, b.String())
}
