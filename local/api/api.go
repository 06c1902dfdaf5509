// Package api serves the runtime's two Unix sockets: HTTP for pods, logs,
// restarts and streams into pods, and a socket of its own for running commands
// in pods with the caller's terminal. The file system is the access control:
// the sockets have mode 0600 in a folder of mode 0700.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/local/logs"
	"weft.mesh/weft/local/pod"
	"weft.mesh/weft/local/process"
)

// Bounds.
const (
	maxRequest  = 1 << 20 // bytes of a request
	maxTail     = 100_000 // lines
	dialTimeout = 5 * time.Second
)

// Backend is the runtime.
type Backend interface {
	Pods() []*pod.Pod
	Rollouts() []admin.Rollout
	Find(namespace, name string) (*pod.Pod, error)
	Log(namespace, pod, container string) (*logs.Log, error)
	RestartDeployment(namespace, name string) error
	Signal(namespace, pod, container string, sig syscall.Signal) error
	Stop()
}

// Server serves the sockets.
type Server struct {
	Backend Backend
	OwnProc bool // memory of processes can be read
	Log     *slog.Logger
}

// Run serves HTTP until ctx ends; streams are cut then.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathPods, s.pods)
	mux.HandleFunc("GET "+admin.PathLogs, s.logs)
	mux.HandleFunc("POST "+admin.PathRestart, s.restart)
	mux.HandleFunc("POST "+admin.PathSignal, s.signal)
	mux.HandleFunc("POST "+admin.PathStop, s.stop)
	mux.HandleFunc("POST "+admin.PathDial, s.dial)
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-base.Done()
		srv.Close()
	})
	defer cancel()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("api: serve %s: %w", ln.Addr(), err)
	}
	return nil
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	out := admin.PodList{Items: []admin.Pod{}, Rollouts: s.Backend.Rollouts()}
	for _, p := range s.Backend.Pods() {
		st := p.Status()
		for i := range st.Containers {
			if c := &st.Containers[i]; s.OwnProc && c.PID != 0 {
				c.RSSBytes = process.RSS(c.PID)
			}
		}
		out.Items = append(out.Items, st)
	}
	reply(w, http.StatusOK, out)
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	tail := logs.All
	if t := q.Get("tail"); t != "" {
		var err error
		if tail, err = strconv.Atoi(t); err != nil || tail < 0 || tail > maxTail {
			fail(w, http.StatusBadRequest, fmt.Errorf("tail: %q: want a number of lines up to %d", t, maxTail))
			return
		}
	}
	follow := q.Get("follow") == "true"
	log, err := s.Backend.Log(q.Get("namespace"), q.Get("pod"), q.Get("container"))
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	out := flushing{w, http.NewResponseController(w)}
	out.Flush()
	log.Copy(r.Context(), out, tail, follow) // its only errors are the reader's
}

// flushing sends every write at once.
type flushing struct {
	io.Writer
	*http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.Flush()
	}
	return n, err
}

func (s *Server) restart(w http.ResponseWriter, r *http.Request) {
	var req admin.RestartRequest
	if !read(w, r, &req) {
		return
	}
	var err error
	switch {
	case req.Deployment != "" && req.Pod == "" && req.Container == "" && !req.Hot:
		err = s.Backend.RestartDeployment(req.Namespace, req.Deployment)
	case req.Pod != "" && req.Deployment == "":
		var p *pod.Pod
		if p, err = s.Backend.Find(req.Namespace, req.Pod); err == nil {
			if req.Hot {
				err = p.HotRestart(r.Context(), req.Container)
			} else {
				err = p.RestartContainer(req.Container)
			}
		}
	default:
		fail(w, http.StatusBadRequest, errors.New("restart: name a deployment, or a pod with a container"))
		return
	}
	done(w, err)
}

func (s *Server) signal(w http.ResponseWriter, r *http.Request) {
	var req admin.SignalRequest
	if !read(w, r, &req) {
		return
	}
	sig, err := parseSignal(req.Signal)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	done(w, s.Backend.Signal(req.Namespace, req.Pod, req.Container, sig))
}

func parseSignal(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "SIG") {
		full = "SIG" + full
	}
	if sig := unix.SignalNum(full); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("signal: %q is none: want a name like SIGTERM or a number", name)
}

func (s *Server) stop(w http.ResponseWriter, _ *http.Request) {
	done(w, nil)
	http.NewResponseController(w).Flush()
	s.Backend.Stop()
}

// dial gives the caller a byte stream to an address inside a pod.
func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !strings.EqualFold(r.Header.Get("Upgrade"), "weft-dial") {
		fail(w, http.StatusUpgradeRequired, errors.New("dial: want the header Upgrade: weft-dial"))
		return
	}
	if _, err := netip.ParseAddrPort(q.Get("address")); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("dial: address %q: want an IP address and port", q.Get("address")))
		return
	}
	p, err := s.Backend.Find(q.Get("namespace"), q.Get("pod"))
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	defer cancel()
	inside, err := p.Dial(ctx, "tcp", q.Get("address"))
	if err != nil {
		fail(w, http.StatusBadGateway, err)
		return
	}
	defer inside.Close()
	caller, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	defer caller.Close()
	// Hijacked connections are ours to end with the server.
	defer context.AfterFunc(r.Context(), func() { caller.Close(); inside.Close() })()
	caller.SetDeadline(time.Time{})
	if _, err := io.WriteString(caller, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: weft-dial\r\n\r\n"); err != nil {
		return
	}
	both(caller, rw.Reader, inside)
}

// both copies in both directions until both have ended; an end in one is passed on.
func both(caller net.Conn, buffered io.Reader, inside net.Conn) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { pipe(inside, buffered) })
	pipe(caller, inside)
}

func pipe(to net.Conn, from io.Reader) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		return
	}
	if h, ok := to.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// read decodes a JSON body, or answers why it cannot.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("read request: %w", err))
		return false
	}
	return true
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func fail(w http.ResponseWriter, code int, err error) {
	reply(w, code, admin.Error{Message: err.Error()})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v)
}
