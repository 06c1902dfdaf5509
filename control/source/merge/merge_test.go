package merge_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/control/source/merge"
	"weft.mesh/weft/control/source/sourcetest"
	"weft.mesh/weft/control/source/store"
	"weft.mesh/weft/model"
)

func newStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "config.db"), store.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func apply(t testing.TB, s *store.Store, puts []convert.Object, deletes ...model.Key) {
	t.Helper()
	if _, _, err := s.Apply(puts, deletes); err != nil {
		t.Fatal(err)
	}
}

func TestAMergedSourceKeepsTheSourceContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		a, b := newStore(t), newStore(t)
		return sourcetest.Harness{Source: merge.New(merge.Named{Name: "a", Source: a}, merge.Named{Name: "b", Source: b}),
			Put:    func(t testing.TB, o convert.Object) { apply(t, b, []convert.Object{o}) },
			Delete: func(t testing.TB, k model.Key) { apply(t, b, nil, k) }}
	})
}

func TestTheFirstSourceWinsAndTheSecondTakesOver(t *testing.T) {
	a, b := newStore(t), newStore(t)
	m := merge.New(merge.Named{Name: "store", Source: a}, merge.Named{Name: "files", Source: b})
	apply(t, b, []convert.Object{sourcetest.Service(t, "x", 2)})
	rec, _ := sourcetest.Start(t, m)
	rec.UntilSynced()
	port := func(want string) {
		t.Helper()
		if e := rec.Want("put Service default/x"); e.Put.ValueAt("spec.ports[0].port") != want {
			t.Errorf("got %s, want port %s", e.Put.Raw, want)
		}
	}
	apply(t, a, []convert.Object{sourcetest.Service(t, "x", 1)})
	port("1")
	if c := m.Conflicts(); len(c) != 1 || c[0].Code != convert.CodeObjectShadowed {
		t.Errorf("conflicts: %+v", c)
	}
	apply(t, b, []convert.Object{sourcetest.Service(t, "x", 3), sourcetest.Service(t, "y", 3)}) // x stays hidden
	rec.Want("put Service default/y")
	if o, ok := m.Get(sourcetest.Key("x")); !ok || o.ValueAt("spec.ports[0].port") != "1" {
		t.Errorf("in force: %s", o.Raw)
	}
	if n := len(m.Objects()); n != 2 {
		t.Errorf("%d objects in force, want 2", n)
	}
	apply(t, a, nil, sourcetest.Key("x"))
	port("3")
	if c := m.Conflicts(); len(c) != 0 {
		t.Errorf("conflicts: %+v", c)
	}
	apply(t, b, nil, sourcetest.Key("x"))
	rec.Want("delete Service default/x")
}

type failing struct{ err error }

func (f failing) Run(context.Context, source.Sink) error { return f.err }

func TestOneFailureEndsTheMergedSource(t *testing.T) {
	boom := errors.New("boom")
	m := merge.New(merge.Named{Name: "good", Source: newStore(t)}, merge.Named{Name: "bad", Source: failing{boom}})
	if err := m.Run(t.Context(), sourcetest.NewRecorder(t)); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	m = merge.New(merge.Named{Name: "quitter", Source: failing{}})
	if err := m.Run(t.Context(), sourcetest.NewRecorder(t)); err == nil {
		t.Error("a source that ends by itself was not reported")
	}
}

// watcher notes what the merged view held when it was started.
type watcher struct {
	m    *merge.Merge
	seen chan int
}

func (w *watcher) Run(ctx context.Context, sink source.Sink) error {
	w.seen <- len(w.m.Objects())
	sink.Synced()
	<-ctx.Done()
	return nil
}

func TestALaterSourceStartsWhenTheEarlierOnesHaveSynced(t *testing.T) {
	s := newStore(t)
	apply(t, s, []convert.Object{sourcetest.Service(t, "a", 80), sourcetest.Service(t, "b", 80)})
	w := &watcher{seen: make(chan int, 1)}
	w.m = merge.New(merge.Named{Name: "store", Source: s}, merge.Named{Name: "files", Source: w})
	rec, _ := sourcetest.Start(t, w.m)
	rec.UntilSynced()
	if n := <-w.seen; n != 2 {
		t.Errorf("the second source was started while the first had put %d objects of 2", n)
	}
}
