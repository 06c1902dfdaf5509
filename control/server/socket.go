package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/spiffe"
)

// applyWait bounds how long an answer waits for the World that holds the change.
const applyWait = 10 * time.Second

// socketHandler serves the control socket. Who may open the socket file may do everything.
func (s *Server) socketHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathObjects, s.getObjects)
	mux.HandleFunc("POST "+admin.PathApply, func(w http.ResponseWriter, r *http.Request) {
		answer(s, w, r, s.config.apply)
	})
	mux.HandleFunc("POST "+admin.PathDelete, func(w http.ResponseWriter, r *http.Request) {
		answer(s, w, r, s.config.delete)
	})
	mux.HandleFunc("POST "+admin.PathScale, func(w http.ResponseWriter, r *http.Request) {
		answer(s, w, r, s.config.scale)
	})
	mux.HandleFunc("POST "+admin.PathDiff, s.postDiff)
	mux.HandleFunc("POST "+admin.PathTokens, s.postToken)
	mux.HandleFunc("GET "+admin.PathNames, s.getNames)
	mux.HandleFunc("GET "+admin.PathStatus, s.getStatus)
	mux.HandleFunc("GET "+admin.PathRetired, s.getRetired)
	mux.HandleFunc("GET "+admin.PathRoot, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "application/x-pem-file")
		_, _ = w.Write(s.ca.Roots())
	})
	return mux
}

// answer runs a change and waits for the World that holds it, so that a
// caller who sees the answer can look at proxies for it.
func answer[Req any](s *Server, w http.ResponseWriter, r *http.Request, change func(context.Context, Req) (admin.ApplyResponse, error)) {
	var req Req
	if !readJSON(w, r, &req) {
		return
	}
	resp, err := change(r.Context(), req)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error(), "")
		return
	}
	if hasErrors(resp.Diagnostics) {
		writeJSON(w, http.StatusUnprocessableEntity, resp)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), applyWait)
	defer cancel()
	if world, err := s.store.Sync(ctx); err == nil {
		resp.World = world.Version()
	}
	writeJSON(w, http.StatusOK, resp)
}

func hasErrors(ds []admin.Diagnostic) bool {
	for _, d := range ds {
		if d.Severity == admin.SeverityError {
			return true
		}
	}
	return false
}

func (s *Server) postDiff(w http.ResponseWriter, r *http.Request) {
	var req admin.ApplyRequest
	if !readJSON(w, r, &req) {
		return
	}
	resp, err := s.config.diff(r.Context(), req)
	switch {
	case err != nil:
		writeError(w, http.StatusInternalServerError, err.Error(), "")
	case hasErrors(resp.Diagnostics):
		writeJSON(w, http.StatusUnprocessableEntity, resp)
	default:
		writeJSON(w, http.StatusOK, resp)
	}
}

func (s *Server) getObjects(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	kind, ns, name := q.Get("kind"), q.Get("namespace"), q.Get("name")
	if q.Get("watch") != "true" {
		if s.config.wait(r.Context()) != nil {
			return // the caller went away before everything was read
		}
		writeJSON(w, http.StatusOK, s.config.list(kind, ns, name))
		return
	}
	watch, stop, ok := s.config.watch(kind, ns, name)
	if !ok {
		writeError(w, http.StatusTooManyRequests, fmt.Sprintf("%d watches are open, the limit", maxWatchers), "close some")
		return
	}
	defer stop()
	stream(w, r, func(ctx context.Context, send func(any) bool) {
		for {
			events, err := watch.next(ctx)
			if err != nil {
				return
			}
			for _, e := range events {
				if !send(e) {
					return
				}
			}
		}
	})
}

func (s *Server) getNames(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("watch") != "true" {
		writeJSON(w, http.StatusOK, s.names.table())
		return
	}
	changed, stop, ok := s.names.watch()
	if !ok {
		writeError(w, http.StatusTooManyRequests, fmt.Sprintf("%d watches are open, the limit", maxWatchers), "close some")
		return
	}
	defer stop()
	stream(w, r, func(ctx context.Context, send func(any) bool) {
		for s.ready.Load() || waitFor(ctx, s.changed.next()) {
			if !send(s.names.table()) || !waitFor(ctx, changed) {
				return
			}
		}
	})
}

func waitFor[T any](ctx context.Context, c <-chan T) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c:
		return true
	}
}

// stream sends JSON lines until the client goes away. A client that does not
// read for a while is let go.
func stream(w http.ResponseWriter, r *http.Request, produce func(ctx context.Context, send func(any) bool)) {
	w.Header().Set("content-type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	enc := json.NewEncoder(w)
	produce(r.Context(), func(v any) bool {
		if rc.SetWriteDeadline(time.Now().Add(30*time.Second)) != nil || enc.Encode(v) != nil {
			return false
		}
		return rc.Flush() == nil
	})
}

func (s *Server) postToken(w http.ResponseWriter, r *http.Request) {
	var req admin.TokenRequest
	if !readJSON(w, r, &req) {
		return
	}
	if req.Namespace == "" || req.ServiceAccount == "" {
		writeError(w, http.StatusBadRequest, "join token: namespace and service account are required", "")
		return
	}
	id, err := spiffe.New(s.ca.TrustDomain(), req.Namespace, req.ServiceAccount)
	if err != nil {
		writeError(w, http.StatusBadRequest, "join token: "+err.Error(), "")
		return
	}
	tok, exp, err := s.tokens.Issue(id, req.TTL)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "")
		return
	}
	s.set.Log.Info("control plane: join token issued", "identity", id.String(), "expires", exp)
	writeJSON(w, http.StatusOK, admin.TokenResponse{Token: tok, Expires: exp})
}

func (s *Server) getStatus(w http.ResponseWriter, _ *http.Request) {
	world := s.world()
	writeJSON(w, http.StatusOK, admin.ControlStatus{
		Version:  version.Version,
		Started:  s.started,
		World:    world.Version(),
		Objects:  world.Len(),
		Services: len(world.Services()),
		Problems: s.config.problems(),
		Proxies:  s.tracker.Proxies(),
	})
}
