package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source/sourcetest"
	"weft.mesh/weft/control/source/store"
	"weft.mesh/weft/model"
)

func open(t testing.TB, path string, settings store.Settings) *store.Store {
	t.Helper()
	s, err := store.Open(path, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t testing.TB, s *store.Store, objs ...convert.Object) []admin.Action {
	t.Helper()
	applied, _, err := s.Apply(objs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []admin.Action
	for _, a := range applied {
		out = append(out, a.Action)
	}
	return out
}

func TestTheStoreKeepsTheSourceContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		s := open(t, filepath.Join(t.TempDir(), "config.db"), store.Settings{})
		return sourcetest.Harness{Source: s,
			Put: func(t testing.TB, o convert.Object) { put(t, s, o) },
			Delete: func(t testing.TB, k model.Key) {
				if _, _, err := s.Apply(nil, []model.Key{k}); err != nil {
					t.Fatal(err)
				}
			}}
	})
}

func TestApplySaysWhatBecameOfEachObject(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "config.db"), store.Settings{})
	a, b := sourcetest.Service(t, "a", 80), sourcetest.Service(t, "b", 80)
	if got := put(t, s, a, b); !cmp.Equal(got, []admin.Action{admin.ActionCreated, admin.ActionCreated}) {
		t.Errorf("first apply: %v", got)
	}
	if got := put(t, s, a, sourcetest.Service(t, "b", 81)); !cmp.Equal(got, []admin.Action{admin.ActionUnchanged, admin.ActionConfigured}) {
		t.Errorf("second apply: %v", got)
	}
	before := s.Revision()
	if put(t, s, a); s.Revision() != before {
		t.Error("an apply that changes nothing made a revision")
	}
	applied, _, err := s.Apply(nil, []model.Key{a.Key, sourcetest.Key("none")})
	want := []admin.Applied{{Kind: "Service", Namespace: "default", Name: "a", Action: admin.ActionDeleted}}
	if err != nil || !cmp.Equal(applied, want) {
		t.Errorf("delete: %v %v", applied, err)
	}
}

func TestObjectsRevisionAndTimeOfCreationSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "config.db")
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := born
	s := open(t, path, store.Settings{Now: func() time.Time { return now }})
	put(t, s, sourcetest.Service(t, "a", 80))
	now = now.Add(time.Hour)
	put(t, s, sourcetest.Service(t, "a", 81))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v %v, want 0600", info.Mode(), err)
	}
	s = open(t, path, store.Settings{})
	e, ok := s.Get(sourcetest.Key("a"))
	if !ok || e.Revision != 2 || s.Revision() != 2 || !e.Object.Meta.Created.Equal(born) || e.Object.ValueAt("spec.ports[0].port") != "81" || e.Object.File != convert.SourceStore {
		t.Errorf("after the restart: %+v, revision %d", e, s.Revision())
	}
	if len(s.Problems()) != 0 {
		t.Errorf("problems: %v", s.Problems())
	}
}

func TestAStoredObjectWithoutUsefulPlacesGivesNoLines(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "config.db"), store.Settings{})
	put(t, s, sourcetest.Service(t, "a", 80))
	e, _ := s.Get(sourcetest.Key("a"))
	if line, _ := e.Object.Position("spec.ports[0].port"); line != 0 {
		t.Errorf("line %d", line)
	}
	if !e.Object.Has("spec.ports[0].port") {
		t.Error("the field is not known to be written")
	}
}

func TestASecondOwnerIsToldWhy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	open(t, path, store.Settings{})
	_, err := store.Open(path, store.Settings{LockTimeout: 10 * time.Millisecond})
	if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), "weft down") {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatIsNoStoreIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is not a database", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(path, store.Settings{}); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("got %v", err)
	}
}

func TestAWatcherThatFallsBehindStartsAnew(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "config.db"), store.Settings{History: 2})
	for i := 1; i <= 5; i++ {
		put(t, s, sourcetest.Service(t, "a", i))
	}
	ctx := t.Context()
	if _, err := s.Next(ctx, 1); !errors.Is(err, store.ErrBehind) {
		t.Errorf("got %v", err)
	}
	changes, err := s.Next(ctx, 3)
	if err != nil || len(changes) != 2 || changes[1].Revision != 5 {
		t.Errorf("got %+v %v", changes, err)
	}
	if _, err := s.Next(ctx, 99); !errors.Is(err, store.ErrBehind) {
		t.Errorf("a revision of the future: %v", err)
	}
}

func TestWatchesEndWithTheStoreAndWithTheirContext(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "config.db"), store.Settings{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	ended := make(chan error)
	go func() {
		_, err := s.Next(t.Context(), 0)
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, store.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, _, err := s.Apply([]convert.Object{sourcetest.Service(t, "a", 1)}, nil); !errors.Is(err, store.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
