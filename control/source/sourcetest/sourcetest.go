// Package sourcetest is the suite that every source.Source passes.
package sourcetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/model"
)

// Harness is a source under test and the way to change what it holds.
type Harness struct {
	Source source.Source
	Put    func(t testing.TB, o convert.Object)
	Delete func(t testing.TB, k model.Key)
}

// Patience is how long the suite waits for an event before it calls it missing.
const Patience = time.Minute

// Service makes an object for tests.
func Service(t testing.TB, name string, port int) convert.Object {
	t.Helper()
	text := fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: default}\nspec: {selector: {app: %s}, ports: [{port: %d, name: http}]}\n", name, name, port)
	objs, diags := convert.Decode(admin.File{Name: name + ".yaml", Content: text}, convert.Options{})
	if len(objs) != 1 || len(diags) != 0 {
		t.Fatalf("decode %s: %+v", name, diags)
	}
	return objs[0]
}

// Key is the key of a Service made by Service.
func Key(name string) model.Key {
	return model.Key{Kind: model.KindService, Namespace: "default", Name: name}
}

// Event is one call of a sink, taken apart.
type Event struct {
	Put    *convert.Object
	Delete *model.Key
	Synced bool
}

func (e Event) String() string {
	switch {
	case e.Put != nil:
		return "put " + e.Put.Key.String()
	case e.Delete != nil:
		return "delete " + e.Delete.String()
	}
	return "synced"
}

// Recorder is a sink that keeps events in order and complains about calls that the contract forbids.
type Recorder struct {
	t      testing.TB
	events chan Event
	busy   atomic.Bool
	ended  atomic.Bool
}

// NewRecorder makes a sink for a test.
func NewRecorder(t testing.TB) *Recorder { return &Recorder{t: t, events: make(chan Event, 10000)} }

func (r *Recorder) call(f func()) {
	if !r.busy.CompareAndSwap(false, true) {
		r.t.Error("the sink was called by two goroutines at once")
	}
	if r.ended.Load() {
		r.t.Error("the sink was called after Run had returned")
	}
	f()
	r.busy.Store(false)
}

// Put implements source.Sink.
func (r *Recorder) Put(objs ...convert.Object) {
	r.call(func() {
		for i := range objs {
			r.events <- Event{Put: &objs[i]}
		}
	})
}

// Delete implements source.Sink.
func (r *Recorder) Delete(keys ...model.Key) {
	r.call(func() {
		for i := range keys {
			r.events <- Event{Delete: &keys[i]}
		}
	})
}

// Synced implements source.Sink.
func (r *Recorder) Synced() { r.call(func() { r.events <- Event{Synced: true} }) }

// Next waits for the next event.
func (r *Recorder) Next() Event {
	r.t.Helper()
	select {
	case e := <-r.events:
		return e
	case <-time.After(Patience):
		r.t.Fatal("no event came")
		return Event{}
	}
}

// Want waits for one event and compares it.
func (r *Recorder) Want(want string) Event {
	r.t.Helper()
	e := r.Next()
	if e.String() != want {
		r.t.Fatalf("got %q, want %q", e, want)
	}
	return e
}

// UntilSynced collects the keys that are put before Synced.
func (r *Recorder) UntilSynced() map[model.Key]convert.Object {
	r.t.Helper()
	out := map[model.Key]convert.Object{}
	for {
		switch e := r.Next(); {
		case e.Synced:
			return out
		case e.Put != nil:
			out[e.Put.Key] = *e.Put
		default:
			r.t.Fatalf("%s came before synced", e)
		}
	}
}

// Start runs a source and returns its recorder and a function that ends it and gives its error.
func Start(t testing.TB, s source.Source) (*Recorder, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := NewRecorder(t)
	done := make(chan error, 1)
	go func() {
		err := s.Run(ctx, r)
		r.ended.Store(true)
		done <- err
	}()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(Patience):
			t.Error("Run did not return after its context ended")
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	return r, stop
}

// Run is the suite. factory makes a fresh, empty source.
func Run(t *testing.T, factory func(t *testing.T) Harness) {
	t.Run("an empty source is synced at once", func(t *testing.T) {
		r, stop := Start(t, factory(t).Source)
		if got := r.UntilSynced(); len(got) != 0 {
			t.Errorf("an empty source put %v", got)
		}
		if err := stop(); err != nil {
			t.Errorf("Run returned %v when its context ended", err)
		}
	})
	t.Run("what exists comes before synced", func(t *testing.T) {
		h := factory(t)
		h.Put(t, Service(t, "a", 80))
		h.Put(t, Service(t, "b", 80))
		r, _ := Start(t, h.Source)
		got := r.UntilSynced()
		if len(got) != 2 || got[Key("a")].Value == nil || got[Key("b")].Value == nil {
			t.Errorf("got %v, want a and b with values", got)
		}
	})
	t.Run("changes come after synced, each once", func(t *testing.T) {
		h := factory(t)
		h.Put(t, Service(t, "a", 80))
		r, _ := Start(t, h.Source)
		r.UntilSynced()
		h.Put(t, Service(t, "b", 80))
		r.Want("put Service default/b")
		h.Put(t, Service(t, "a", 81))
		if e := r.Want("put Service default/a"); e.Put.ValueAt("spec.ports[0].port") != "81" {
			t.Errorf("the old object came: %s", e.Put.Raw)
		}
		h.Put(t, Service(t, "a", 81)) // the same again: no event, so that the next one is the deletion
		h.Delete(t, Key("b"))
		r.Want("delete Service default/b")
		h.Put(t, Service(t, "b", 82))
		r.Want("put Service default/b")
	})
	t.Run("objects carry their key, metadata and raw form", func(t *testing.T) {
		h := factory(t)
		h.Put(t, Service(t, "a", 80))
		r, _ := Start(t, h.Source)
		o := r.UntilSynced()[Key("a")]
		if o.Meta.Key != Key("a") || o.APIVersion != "v1" || len(o.Raw) == 0 || o.File == "" || o.Meta.Source == "" {
			t.Errorf("the object is not complete: %+v", o)
		}
		if ms, diags := convert.ToModel(&o, model.Mesh{}); len(ms) != 1 {
			t.Errorf("the object has no model: %+v", diags)
		}
	})
	t.Run("a second run delivers everything anew", func(t *testing.T) {
		h := factory(t)
		h.Put(t, Service(t, "a", 80))
		r, stop := Start(t, h.Source)
		r.UntilSynced()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		h.Put(t, Service(t, "b", 80))
		r, _ = Start(t, h.Source)
		if got := r.UntilSynced(); len(got) != 2 {
			t.Errorf("the second run put %d objects, want 2", len(got))
		}
	})
	t.Run("a burst of changes ends in the last state", func(t *testing.T) {
		h := factory(t)
		r, _ := Start(t, h.Source)
		r.UntilSynced()
		const n = 50
		for i := 1; i <= n; i++ {
			h.Put(t, Service(t, "a", i))
		}
		h.Put(t, Service(t, "end", 80))
		last := ""
		for {
			e := r.Next()
			if e.Put != nil && e.Put.Key == Key("a") {
				last = e.Put.ValueAt("spec.ports[0].port")
			}
			if e.Put != nil && e.Put.Key == Key("end") {
				break
			}
		}
		if last != fmt.Sprint(n) {
			t.Errorf("the last state delivered has port %s, want %d", last, n)
		}
	})
}

// Events gives the events that have not been taken by Next.
func (r *Recorder) Events() <-chan Event { return r.events }
