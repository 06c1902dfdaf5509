package kube

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// trouble says once that something cannot be read, and once that it can again.
type trouble struct {
	log  *slog.Logger
	host string

	mu       sync.Mutex // protects the following
	away     bool
	answered time.Time       // when the server last answered anything
	denied   map[string]bool // resources that may not be read
}

func newTrouble(log *slog.Logger, host string) *trouble {
	return &trouble{log: log, host: host, denied: map[string]bool{}}
}

// report takes the outcome of one request. What failed, and was begun before another one was answered, tells nothing new:
// requests end in another order than they begin in.
func (t *trouble) report(ctx context.Context, resource string, began time.Time, err error) {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return // it was ended, which says nothing
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.answered = time.Now()
		if t.away {
			t.away = false
			t.log.Info("kubernetes: the API server answers again", "server", t.host)
		}
		if t.denied[resource] {
			delete(t.denied, resource)
			t.log.Info("kubernetes: a resource may be read again", "resource", resource)
		}
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		if !t.denied[resource] {
			t.denied[resource] = true
			t.log.Error("kubernetes: a resource may not be read: configuration of it stays as it was; grant get, list and watch to the control plane's service account", "resource", resource, "error", err)
		}
	case apierrors.IsNotFound(err), apierrors.IsResourceExpired(err), apierrors.IsGone(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		// An answer: the kind is being removed, or the history was too short, or watches cannot begin with a list.
	case !t.away && began.After(t.answered):
		t.away = true
		t.log.Error("kubernetes: the API server does not answer; the mesh goes on with what it has, and is brought up to date when it answers", "server", t.host, "error", err)
	}
}
