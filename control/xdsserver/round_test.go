package xdsserver

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/xds"
)

// watched is a snapshot that notes the types that it is asked about.
type watched struct {
	*fakeSnapshot
	only  bool // nothing but endpoints is new
	asked map[string]bool
}

func (w *watched) Unchanged(prev xds.Snapshot, n *xds.Node, typeURL string) bool {
	w.asked[xds.ShortName(typeURL)] = true
	return w.fakeSnapshot.Unchanged(prev.(*watched).fakeSnapshot, n, typeURL)
}

func (w *watched) OnlyEndpoints(xds.Snapshot) bool { return w.only }

func TestWhatAChangeOfEndpointsCannotHaveChangedIsNotLookedFor(t *testing.T) {
	c := newClient(t, true, xds.ClusterType, xds.EndpointType, xds.ListenerType)
	round := func(what string, only bool, asked, told []string, lines ...string) {
		t.Helper()
		s := &watched{snap(what, lines...), only, map[string]bool{}}
		c.log = nil
		c.s.publish(s)
		c.run()
		if got := slices.Sorted(maps.Keys(s.asked)); !slices.Equal(got, asked) {
			t.Errorf("%s: looked for %v, want %v", what, got, asked)
		}
		if !slices.Equal(c.log, told) {
			t.Errorf("%s: told %q, want %q", what, c.log, told)
		}
		if v, ok := c.s.settled(); !ok || v != what {
			t.Errorf("%s: settled at %q", what, v)
		}
	}
	all := []string{"CDS", "EDS", "LDS"}
	round("first", true, nil, []string{"CDS c=1", "EDS e=1", "LDS l=1"}, "CDS c=1", "EDS e=1", "LDS l=1")
	round("endpoints", true, []string{"EDS"}, []string{"EDS e=3"}, "CDS c=1", "EDS e=3", "LDS l=1")
	round("more than endpoints", false, all, []string{"CDS c=2", "EDS e=4", "LDS l=2"}, "CDS c=2", "EDS e=4", "LDS l=2")
	round("endpoints again", true, []string{"EDS"}, []string{"EDS e=5"}, "CDS c=2", "EDS e=5", "LDS l=2")
	for _, w := range c.s.watches {
		if w.at != c.s.snap {
			t.Errorf("%s keeps an old snapshot alive", xds.ShortName(w.typeURL))
		}
	}
	c.s.watch(xds.RouteType)
	round("a type that nothing is known of", true, all, []string{"EDS e=6"}, "CDS c=2", "EDS e=6", "LDS l=2")

	old := newClient(t, false, xds.ClusterType, xds.EndpointType)
	for i, want := range [][]string{{"CDS c=1", "EDS e=1"}, {"EDS e=2"}, {"EDS e=3"}} {
		s := &watched{snap(fmt.Sprint(i), "CDS c=1", fmt.Sprint("EDS e=", i+1)), true, map[string]bool{}}
		old.log = nil
		old.s.publish(s)
		old.run()
		if !slices.Equal(old.log, want) || i > 0 && len(s.asked) != 2 {
			t.Errorf("state of the world, round %d: told %q, looked for %v", i, old.log, s.asked)
		}
	}
}

// bell counts how often a stream is woken.
type bell struct {
	*stream
	rung atomic.Int32
}

func (b *bell) wake() { b.rung.Add(1) }

func TestAnOverdueAnswerWakesItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTimed(t, xds.ListenerType)
		b := &bell{stream: d.st}
		d.st.wake = b
		d.st.srv.streams[1] = b
		late := d.st.srv.set.Limits.AckTimeout
		for range 2 {
			d.publish(0, time.Now().String(), "LDS l="+time.Now().String())
			d.turn()
			b.rung.Store(0)
			time.Sleep(late - time.Millisecond)
			if b.rung.Load() != 0 {
				t.Fatal("woken before it is late")
			}
			time.Sleep(late/8 + 2*time.Millisecond)
			if b.rung.Load() == 0 {
				t.Fatal("not woken though it is late")
			}
			d.turn()
			d.ack(xds.ListenerType)
			b.rung.Store(0)
			time.Sleep(3 * late)
			if b.rung.Load() != 0 || d.st.srv.overdue.on.Load() {
				t.Fatalf("nobody waits: woken %d times, still looking %v", b.rung.Load(), d.st.srv.overdue.on.Load())
			}
		}
	})
}
