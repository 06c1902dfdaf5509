package snapshot

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/model"
)

// run starts a store in fake time; the function it returns says when each World was published.
func run(t *testing.T, s *Store) (published func() []time.Duration) {
	t.Helper()
	start := time.Now()
	var mu sync.Mutex
	var times []time.Duration
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, func(*World) {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Since(start))
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(times)
	}
}

func TestAChangeAfterQuietIsPublishedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(Settings{})
		got := run(t, s)
		time.Sleep(time.Second)
		s.Apply(put(service("default", "a"))...)
		synctest.Wait()
		if fmt.Sprint(got()) != "[1s]" {
			t.Errorf("published at %v, want at once (1s)", got())
		}
	})
}

func TestAStormIsBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(Settings{})
		got := run(t, s)
		for i := range 300 { // every 10 ms for 3 s
			s.Apply(put(service("default", fmt.Sprint("s", i)))...)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		// The first at once, then at most one each second, the last after 100 ms of quiet.
		if len(got()) < 3 || len(got()) > 6 {
			t.Errorf("published %d Worlds at %v, want 3 to 6 for 300 changes", len(got()), got())
		}
		for i := 1; i < len(got())-1; i++ {
			if d := got()[i] - got()[i-1]; d > 1100*time.Millisecond {
				t.Errorf("%v between two Worlds of a storm, want at most 1.1s", d)
			}
		}
		if n := len(s.World().Services()); n != 300 {
			t.Errorf("%d services, want 300", n)
		}
	})
}

func TestTwoQuickChangesMakeTwoWorlds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(Settings{})
		got := run(t, s)
		s.Apply(put(service("default", "a"))...)
		synctest.Wait()
		s.Apply(put(service("default", "b"))...)
		s.Apply(put(service("default", "c"))...)
		time.Sleep(99 * time.Millisecond)
		synctest.Wait()
		if len(got()) != 1 {
			t.Errorf("published at %v before it was quiet", got())
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if fmt.Sprint(got()) != "[0s 100ms]" {
			t.Errorf("published at %v, want 0s and 100ms", got())
		}
	})
}

func TestTheLastChangeOfAKeyCounts(t *testing.T) {
	s := NewStore(Settings{})
	a := service("default", "a")
	s.Apply(put(a)...)
	s.Apply(drop(a)...)
	s.Apply(put(service("default", "b"))...)
	published := 0
	s.Flush(func(*World) { published++ })
	if w := s.World(); w.Service(a.Host, "default") != nil || len(w.Services()) != 1 || published != 1 {
		t.Errorf("services %v, published %d times", w.Services(), published)
	}
	s.Apply(put(service("default", "b"))...)
	s.Flush(func(*World) { published++ })
	if published != 1 {
		t.Error("published a World that is no different")
	}
	if w := s.World(); w.Sequence() != 1 || w.Version() == "" {
		t.Errorf("version %q, sequence %d", w.Version(), w.Sequence())
	}
}

func TestOtherSettingsMakeAWorldOfTheSameObjects(t *testing.T) {
	s := NewStore(Settings{})
	s.Apply(put(service("default", "web"), pod("default", "a", "10.0.0.1", "web"))...)
	s.Flush(nil)
	before := s.World()
	s.SetMesh(model.Mesh{})
	s.Flush(func(*World) { t.Error("the same settings make another World") })
	s.SetMesh(model.Mesh{RegistryOnly: true})
	s.Apply(put(pod("default", "b", "10.0.0.2", "web"))...)
	s.Flush(nil)
	w := s.World()
	if !w.Mesh().RegistryOnly || before.Mesh().RegistryOnly || w.Sequence() <= before.Sequence() || w.Len() != 3 {
		t.Errorf("settings %+v, sequence %d after %d, %d objects", w.Mesh(), w.Sequence(), before.Sequence(), w.Len())
	}
	key := ServiceKey{host("default", "web"), "default"}
	if got := addresses(w.Endpoints(key).Of(80)); len(got) != 2 {
		t.Errorf("endpoints %v", got)
	}
	if a, b := before.Revisions(), w.Revisions(); a.Services == b.Services || a.Endpoints == b.Endpoints {
		t.Error("what was made for the old settings counts on")
	}
}

// Began is of the change that waited longest, also when it came while another World was made of those before.
func TestAWorldKnowsWhenItsFirstChangeCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(Settings{})
		if !s.World().Began().IsZero() {
			t.Errorf("an empty World began at %v", s.World().Began())
		}
		got := run(t, s)
		first := time.Now()
		s.Apply(put(service("default", "a"))...)
		synctest.Wait()
		if b := s.World().Began(); !b.Equal(first) {
			t.Errorf("began at %v, want %v", b, first)
		}
		time.Sleep(10 * time.Millisecond)
		second := time.Now()
		s.Apply(put(service("default", "b"))...)
		time.Sleep(50 * time.Millisecond)
		s.Apply(put(service("default", "c"))...)
		time.Sleep(time.Second)
		if b := s.World().Began(); !b.Equal(second) || len(got()) != 2 {
			t.Errorf("began at %v, want %v; published at %v", b, second, got())
		}
		mesh := s.World().Mesh()
		mesh.ConnectTimeout++
		third := time.Now()
		s.SetMesh(mesh)
		time.Sleep(time.Second)
		if b := s.World().Began(); !b.Equal(third) {
			t.Errorf("with other settings: began at %v, want %v", b, third)
		}
	})
}
