package status

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

func connected(t *testing.T, tr *Tracker, stream uint64, id string) xdsserver.Witness {
	t.Helper()
	return tr.Connected(stream, &xds.Node{ID: id, Namespace: "default", Name: id, Version: "1.0"}, spiffe.ID{})
}

func state(t *testing.T, tr *Tracker, pod, typ string) admin.TypeStatus {
	t.Helper()
	for _, p := range tr.Proxies() {
		if p.Pod == pod {
			return p.Types[typ]
		}
	}
	t.Fatalf("no proxy %s", pod)
	return admin.TypeStatus{}
}

func TestWhatAProxyWasSentAndAnswered(t *testing.T) {
	tr := New()
	p := connected(t, tr, 1, "a")
	p.Subscribed(xds.ClusterType, 0)
	if s := state(t, tr, "a", "CDS"); s.State != admin.SyncNotSent {
		t.Errorf("before the first response: %s", s.State)
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { p.Sent(xds.ClusterType, "v1", 3, 100) }, admin.SyncStale},
		{func() { p.Acked(xds.ClusterType, "v1") }, admin.SyncSynced},
		{func() { p.Sent(xds.ClusterType, "v2", 3, 100); p.Nacked(xds.ClusterType, "v2", "no") }, admin.SyncRefused},
		{func() { p.Sent(xds.ClusterType, "v3", 3, 100); p.Acked(xds.ClusterType, "v3") }, admin.SyncSynced},
	} {
		if step.do(); state(t, tr, "a", "CDS").State != step.want {
			t.Errorf("%s, want %s", state(t, tr, "a", "CDS").State, step.want)
		}
	}
	p.Subscribed(xds.EndpointType, 7)
	p.Settled("w1")
	if s := state(t, tr, "a", "EDS"); s.State != admin.SyncSynced || s.Resources != 7 {
		t.Errorf("what it came back with: %+v", s)
	}
}

// Numbers never fall: those of a proxy that is gone stay.
func TestCountsStayWhenProxiesGo(t *testing.T) {
	tr := New()
	var wg sync.WaitGroup
	for i := range uint64(8) {
		p := connected(t, tr, i, string(rune('a'+i)))
		wg.Go(func() {
			for range 100 {
				p.Sent(xds.EndpointType, "v", 1, 1)
			}
			p.Nacked(xds.RouteType, "v", "no")
		})
	}
	wg.Wait()
	want := map[string]uint64{"EDS": 800}
	for left := 8; left >= 0; left-- {
		pushes, rejects, versions := tr.Counts()
		if !maps.Equal(pushes, want) || rejects["RDS"] != 8 || versions["1.0"] != left {
			t.Fatalf("with %d proxies: %v pushes, %v refusals, %v connected", left, pushes, rejects, versions)
		}
		tr.Disconnected(uint64(left - 1))
	}
	if len(tr.Proxies()) != 8 {
		t.Errorf("%d proxies, want 8 that are lost", len(tr.Proxies()))
	}
}

// A client that asks for types of its own, other ones with each connection, adds one count in all.
func TestTypesThatClientsMakeUpAreOne(t *testing.T) {
	tr := New()
	for i := range uint64(100) {
		p := connected(t, tr, i, "a")
		typ := fmt.Sprint("made.up/", i)
		p.Sent(typ, "v", 0, 0)
		p.Nacked(typ, "v", "no")
		if i > 0 {
			tr.Disconnected(i - 1)
		}
	}
	pushes, rejects, _ := tr.Counts()
	if want := map[string]uint64{"other": 100}; !maps.Equal(pushes, want) || !maps.Equal(rejects, want) {
		t.Errorf("pushes %v, refusals %v", pushes, rejects)
	}
}
