package kube

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Requests that are under way together when the server goes and comes end in any order.
func TestAnOutageIsSaidOnceWhateverEndsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		tr := newTrouble(slog.New(slog.NewTextHandler(&log, nil)), "https://api")
		ctx, refused := context.Background(), errors.New("connection refused")
		said := func(away, back int) {
			t.Helper()
			if a, b := strings.Count(log.String(), "does not answer"), strings.Count(log.String(), "answers again"); a != away || b != back {
				t.Errorf("away %d times, want %d; back %d times, want %d:\n%s", a, away, b, back, log.String())
			}
		}
		began := time.Now()
		time.Sleep(time.Second)
		tr.report(ctx, "services", began, refused)
		tr.report(ctx, "nodes", began, refused)
		said(1, 0)
		tr.report(ctx, "services", time.Now(), nil)
		said(1, 1)
		tr.report(ctx, "nodes", began, refused) // begun while it was away
		tr.report(ctx, "pods", time.Now(), refused)
		said(1, 1)
		time.Sleep(time.Second)
		tr.report(ctx, "nodes", time.Now(), refused) // it is away again
		said(2, 1)
	})
}
