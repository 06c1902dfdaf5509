package xdsserver

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// stopwatch writes down what it hears.
type stopwatch struct{ log []string }

func (s *stopwatch) add(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *stopwatch) Queued(d time.Duration)    { s.add("queued %v", d) }
func (s *stopwatch) Converged(d time.Duration) { s.add("converged %v", d) }
func (s *stopwatch) Pushed(typeURL string, d time.Duration, bytes int) {
	s.add("%s %v %dB", xds.ShortName(typeURL), d, bytes)
}

// take is what was heard since the last take.
func (s *stopwatch) take() []string {
	l := s.log
	s.log = nil
	return l
}

// changed is a snapshot that knows when its first change came.
type changed struct {
	*fakeSnapshot
	began time.Time
}

func (c changed) Began() time.Time { return c.began }

func (c changed) Unchanged(prev xds.Snapshot, n *xds.Node, typeURL string) bool {
	p, ok := prev.(changed)
	return ok && c.fakeSnapshot.Unchanged(p.fakeSnapshot, n, typeURL)
}

// timed is a stream without a connection: what it sends takes sending.
type timed struct {
	t       *testing.T
	st      *stream
	heard   *stopwatch
	sending time.Duration
	nonces  map[string]string // unanswered, by type
}

func newTimed(t *testing.T, types ...string) *timed {
	d := &timed{t: t, heard: &stopwatch{}, nonces: map[string]string{}}
	srv := New(Settings{Observer: deaf{}, Meter: d.heard, Log: slog.New(slog.DiscardHandler),
		Authenticate: func(context.Context) (spiffe.ID, error) { return spiffe.ID{}, nil }})
	d.st = &stream{srv: srv, witness: deaf{}, wake: asleep{}, entered: func() {}, sess: newSession(true, srv.set.Limits, srv.hub)}
	t.Cleanup(d.st.end)
	d.st.sess.node = &xds.Node{ID: "n"}
	for _, typ := range types {
		w, _ := d.st.sess.watch(typ)
		w.wildcard = true
	}
	return d
}

// publish makes a snapshot whose first change is a while ago.
func (d *timed) publish(ago time.Duration, version string, lines ...string) {
	d.st.srv.Publish(changed{snap(version, lines...), time.Now().Add(-ago)})
}

func (d *timed) send(m *message) (int, error) {
	time.Sleep(d.sending)
	d.nonces[m.typeURL] = m.nonce
	return m.size(), nil
}

// turn is the stream's turn to be told what is new.
func (d *timed) turn() {
	d.t.Helper()
	if err := d.st.proceed(d.send, nil); err != nil {
		d.t.Fatal(err)
	}
}

// ack answers the newest response of a type.
func (d *timed) ack(typeURL string) {
	d.t.Helper()
	err := d.st.proceed(d.send, func(time.Time) ([]*message, error) {
		d.st.settle(d.st.sess.watches.of(typeURL), d.nonces[typeURL], "", false, time.Now())
		return nil, nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *timed) want(what string, want ...string) {
	d.t.Helper()
	if diff := cmp.Diff(want, d.heard.take()); diff != "" {
		d.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestConvergenceIsFromTheFirstChangeToTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTimed(t, xds.RouteType, xds.ListenerType)
		d.publish(time.Hour, "1", "LDS l=1", "RDS r=1")
		d.turn()
		d.ack(xds.ListenerType)
		d.ack(xds.RouteType)
		d.want("a new client is told what there is", "LDS 0s 1B", "RDS 0s 1B")

		d.publish(100*time.Millisecond, "2", "LDS l=22", "RDS r=333")
		time.Sleep(5 * time.Millisecond)
		d.sending = time.Millisecond
		d.turn()
		time.Sleep(20 * time.Millisecond)
		d.ack(xds.ListenerType)
		time.Sleep(30 * time.Millisecond)
		d.ack(xds.RouteType)
		d.want("both types changed", "queued 5ms", "LDS 1ms 2B", "RDS 1ms 3B", "converged 157ms")

		d.turn()
		d.want("nothing happened")

		d.publish(0, "3", "LDS l=22", "RDS r=333")
		time.Sleep(time.Second)
		d.turn()
		d.want("a snapshot that is the same for this client", "queued 1s")

		d.publish(0, "4", "LDS l=22", "RDS r=4")
		time.Sleep(time.Second)
		d.turn()
		d.ack(xds.RouteType)
		d.want("the second that it had to wait is its own", "queued 1s", "RDS 1ms 1B", "converged 1.001s")
	})
}

// Snapshots that come while a client is busy are one more round; what came first counts.
func TestConvergenceCountsFromTheChangeThatWaitedLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTimed(t, xds.RouteType)
		d.publish(0, "1", "RDS r=1")
		d.turn()
		d.ack(xds.RouteType)
		d.publish(0, "2", "RDS r=2")
		d.turn()
		time.Sleep(time.Second)
		for i := range 3 {
			d.publish(0, fmt.Sprint("3.", i), fmt.Sprint("RDS r=3.", i))
			time.Sleep(time.Second)
		}
		d.heard.take()
		d.ack(xds.RouteType) // of 2, after 4 s
		d.want("it goes on with the newest", "queued 1s", "RDS 0s 3B")
		d.ack(xds.RouteType)
		d.want("since the second change", "converged 4s")

		for i := range 3 * remembered {
			d.publish(0, fmt.Sprint("4.", i), fmt.Sprint("RDS r=4.", i))
			time.Sleep(time.Second)
		}
		d.turn()
		d.ack(xds.RouteType)
		d.want("later than is remembered", "queued 1s", "RDS 0s 5B", fmt.Sprintf("converged %v", remembered*time.Second))
	})
}

func TestMeasuringAPushAllocatesNothing(t *testing.T) {
	var p progress
	var m Meter = unmetered{}
	h := (*holder)(nil).after(snap("1"), time.Now())
	next := h.after(snap("2"), time.Now())
	n := testing.AllocsPerRun(1000, func() {
		p = progress{seen: 1, has: 1, told: true}
		p.turn(next, time.Now(), m)
		p.settled(next, next.at, m)
	})
	if n != 0 || p.has != 2 {
		t.Errorf("%v allocations, has %d", n, p.has)
	}
}
