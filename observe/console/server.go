package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/observe/traffic"
)

// Mesh is what the console asks of a mesh; client.Client of api/admin/client answers it.
type Mesh interface {
	Status(ctx context.Context) (*admin.ControlStatus, error)
	Objects(ctx context.Context) ([]admin.Object, error)
	Pods(ctx context.Context) ([]admin.Pod, error)
	Metrics(ctx context.Context, namespace, pod string) (io.ReadCloser, error)
}

// Settings of a Server.
type Settings struct {
	Mesh Mesh
	Log  *slog.Logger // default: nothing is logged
}

// Bounds of what visitors may take.
const (
	maxConns    = 256
	maxViewers  = 64 // that watch events
	maxHeader   = 16 << 10
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute
	// writeTimeout is how long one answer or one event may take to be taken.
	writeTimeout = 10 * time.Second
)

// Server is a console.
type Server struct {
	mesh     Mesh
	log      *slog.Logger
	store    *traffic.Store
	audience *audience
	page     http.Handler

	mu      sync.Mutex // protects the following
	cur     *view
	fresh   chan struct{}            // closed when cur is replaced
	encoded map[time.Duration][]byte // of cur, by window
}

// New makes a server. It starts nothing.
func New(set Settings) (*Server, error) {
	if set.Mesh == nil {
		return nil, errors.New("console: Mesh is not set")
	}
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	page, err := newPage()
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return &Server{
		mesh: set.Mesh, log: set.Log, store: traffic.New(), audience: newAudience(), page: page,
		cur: &view{}, fresh: make(chan struct{}), encoded: map[time.Duration][]byte{},
	}, nil
}

// Handler answers requests. What it shows is kept up to date by Run or Serve.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/overview", s.windowed(func(v *view, t *traffic.Snapshot) any { return v.overview(t) }))
	mux.HandleFunc("/api/v1/graph", s.windowed(func(v *view, t *traffic.Snapshot) any { return v.graph(t) }))
	mux.HandleFunc("/api/v1/proxies", s.plain(func(v *view, _ *http.Request) (any, error) { return v.proxyList(), nil }))
	mux.HandleFunc("/api/v1/pods", s.plain(func(v *view, _ *http.Request) (any, error) { return v.podList(), nil }))
	mux.HandleFunc("/api/v1/objects", s.plain(func(v *view, _ *http.Request) (any, error) { return v.objectList(), nil }))
	mux.HandleFunc("/api/v1/object", s.plain(func(v *view, r *http.Request) (any, error) { return v.object(r.URL.Query()) }))
	mux.HandleFunc("/api/v1/events", s.events)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no endpoint "+r.URL.Path)
	})
	mux.Handle("/", s.page)
	return guard(mux)
}

// Serve answers on l, and looks at the mesh while somebody watches, until ctx
// ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.Run(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		h.Close() // what is open are streams of events, which have no end of their own
	})
	err := h.Serve(newLimit(l, maxConns))
	cancel()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("console: %w", err)
}
