package upstream

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream/outlier"
)

// spread counts where n picks go, by address.
func (w *world) spread(n int) map[string]int {
	got := map[string]int{}
	s := w.c().cur.Load()
	for i := range n {
		r := &Request{Random: uint64(i+1) * 0x9e3779b97f4a7c15}
		if h := w.c().pick(s, r); h != nil {
			got[h.Addr().Addr().String()]++
		} else {
			got["none"]++
		}
	}
	return got
}

func about(t *testing.T, got map[string]int, want map[string]int) {
	t.Helper()
	for k, v := range want {
		if d := got[k] - v; d < -120 || d > 120 {
			t.Errorf("picks %v, want about %v", got, want)
			return
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("picks %v, want about %v", got, want)
			return
		}
	}
}

func TestPriorities(t *testing.T) {
	ep := func(a string, prio uint32, h config.Health) *config.Endpoint {
		return &config.Endpoint{Addr: netip.MustParseAddrPort(a + ":80"), Weight: 1, Priority: prio, Health: h}
	}
	const up, down = config.Healthy, config.Unhealthy
	for name, c := range map[string]struct {
		eps   []*config.Endpoint
		panic uint32
		want  map[string]int
	}{
		"all to the first level while it is healthy": {[]*config.Endpoint{ep("1.1.1.1", 0, up), ep("2.2.2.2", 1, up)}, 0, map[string]int{"1.1.1.1": 2000}},
		"70 % to a level that is half healthy":       {[]*config.Endpoint{ep("1.1.1.1", 0, up), ep("1.1.1.2", 0, down), ep("2.2.2.2", 1, up)}, 0, map[string]int{"1.1.1.1": 1400, "2.2.2.2": 600}},
		"all to the second if the first is down":     {[]*config.Endpoint{ep("1.1.1.1", 0, down), ep("2.2.2.2", 1, up)}, 0, map[string]int{"2.2.2.2": 2000}},
		"a level may be missing":                     {[]*config.Endpoint{ep("2.2.2.2", 2, up)}, 0, map[string]int{"2.2.2.2": 2000}},
		"nobody, if nobody is healthy":               {[]*config.Endpoint{ep("1.1.1.1", 0, down)}, 0, map[string]int{"none": 2000}},
		"everybody in panic":                         {[]*config.Endpoint{ep("1.1.1.1", 0, down), ep("1.1.1.2", 0, down)}, 50, map[string]int{"1.1.1.1": 1000, "1.1.1.2": 1000}},
		"no panic at the threshold":                  {[]*config.Endpoint{ep("1.1.1.1", 0, up), ep("1.1.1.2", 0, down)}, 50, map[string]int{"1.1.1.1": 2000}},
		"a draining endpoint gets nothing":           {[]*config.Endpoint{ep("1.1.1.1", 0, up), ep("1.1.1.2", 0, config.Draining)}, 0, map[string]int{"1.1.1.1": 2000}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := clusterOf()
			cfg.Endpoints, cfg.PanicThreshold = c.eps, c.panic
			about(t, newWorld(t, &fakeNet{}, cfg).spread(2000), c.want)
		})
	}
}

func TestChangesKeepWarmConnections(t *testing.T) {
	tls := func(sni string) *config.UpstreamTLS { return &config.UpstreamTLS{Workload: true, SNI: sni} }
	for name, c := range map[string]struct {
		change func(c *config.Cluster)
		conns  int // made in all: 1 if the old one is still used
	}{
		"nothing":  {func(*config.Cluster) {}, 1},
		"a weight": {func(c *config.Cluster) { c.Endpoints[0].Weight = 7 }, 1},
		"another endpoint": {func(c *config.Cluster) {
			c.Endpoints = append(c.Endpoints, &config.Endpoint{Addr: netip.MustParseAddrPort("9.9.9.9:9"), Health: config.Unhealthy})
		}, 1},
		"the policy":          {func(c *config.Cluster) { c.LB.Policy = config.Maglev }, 1},
		"limits":              {func(c *config.Cluster) { c.Breakers.MaxRequests = 5 }, 1},
		"the same TLS anew":   {func(c *config.Cluster) { c.TLS = tls("a") }, 1},
		"another server name": {func(c *config.Cluster) { c.TLS = tls("b") }, 2},
		"the protocol":        {func(c *config.Cluster) { c.Protocol = config.ProtoHTTP2 }, 2},
		"the address":         {func(c *config.Cluster) { c.Endpoints[0] = endpoint("10.0.0.9:80") }, 2},
		"TLS by label":        {func(c *config.Cluster) { c.TLSMatches = []config.TransportMatch{{TLS: nil}} }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				make := func() *config.Cluster {
					cfg := clusterOf("10.0.0.1:80")
					cfg.TLS = tls("a")
					return cfg
				}
				w := newWorld(t, &fakeNet{}, make())
				x, _ := w.get()
				x.Close()
				cfg := make()
				c.change(cfg)
				w.apply(cfg)
				x, _ = w.get()
				x.Close()
				w.expectConns(c.conns, 1)
			})
		})
	}
}

func TestARemovedEndpointFinishesWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, proto := range []config.Protocol{config.ProtoHTTP1, config.ProtoHTTP2} {
			cfg := clusterOf("10.0.0.1:80")
			cfg.Protocol = proto
			w := newWorld(t, &fakeNet{}, cfg)
			x, _ := w.get()
			w.apply(clusterOf("10.0.0.2:80"))
			w.expectConns(1, 1)
			x.Close()
			w.expectConns(1, 0)
		}
		w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
		x, _ := w.get()
		w.apply() // the whole cluster
		x.Close()
		w.expectConns(1, 0)
		if w.c() != nil {
			t.Error("the cluster is still there")
		}
	})
}

func TestARequestOnItsWayToARemovedEndpointIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, proto := range []config.Protocol{config.ProtoHTTP1, config.ProtoHTTP2, config.ProtoALPN} {
			cfg := clusterOf("10.0.0.1:80")
			cfg.Protocol = proto
			w := newWorld(t, &fakeNet{delay: time.Second, h2: proto == config.ProtoALPN}, cfg)
			time.AfterFunc(500*time.Millisecond, func() { w.apply(clusterOf("10.0.0.2:80")) })
			x, _ := w.get()
			x.Close()
			w.expectConns(1, 0)
			if s := w.c().Snapshot(); s.Conns != 0 || s.Requests != 0 || s.Pending != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestAConnectionThatNobodyWantsAnyMoreIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Protocol = config.ProtoHTTP2
		w := newWorld(t, &fakeNet{delay: time.Second}, cfg)
		time.AfterFunc(500*time.Millisecond, func() { w.apply(clusterOf("10.0.0.2:80")) })
		w.refused(&Request{Deadline: time.Now().Add(700 * time.Millisecond)})
		time.Sleep(time.Second)
		w.expectConns(1, 0)
	})
}

func TestOutlierDetectionEjectsAndLetsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80", "10.0.0.2:80")
		cfg.Outlier = &config.Outlier{Consecutive5xx: 3, Interval: time.Second, BaseEjection: 5 * time.Second, MaxEjectionPercent: 100}
		w := newWorld(t, &fakeNet{}, cfg)
		defer w.run()()
		h := w.c().cur.Load().all[0]
		for range 3 {
			h.Report(outlier.Result{Status: 503})
		}
		about(t, w.spread(1000), map[string]int{"10.0.0.2": 1000})
		if s := w.c().Snapshot(); s.EjectionsActive != 1 || !s.Hosts[0].Ejected || s.Hosts[0].EjectionCause != "consecutive_5xx" {
			t.Errorf("%+v", s)
		}
		next := clusterOf("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
		next.Outlier = cfg.Outlier
		w.apply(next) // a config change does not let it back
		if !h.Ejected() {
			t.Error("a config change let it back")
		}
		time.Sleep(7 * time.Second)
		if h.Ejected() || len(w.spread(1000)) != 3 {
			t.Error("it was not let back")
		}
		for range 3 {
			h.Report(outlier.Result{Status: 503})
		}
		w.apply(clusterOf("10.0.0.1:80", "10.0.0.2:80")) // without outlier detection nobody is ejected
		if h.Ejected() {
			t.Error("still ejected by a detection that is off")
		}
	})
}

func TestConnectFailuresEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Outlier = &config.Outlier{Consecutive5xx: 2, MaxEjectionPercent: 100}
		w := newWorld(t, &fakeNet{fail: func(netip.AddrPort) error { return errors.New("no") }}, cfg)
		w.refused(&Request{})
		w.refused(&Request{})
		if e := w.refused(&Request{}); e != ErrNoHealthy {
			t.Errorf("%v, want no healthy endpoint", e)
		}
	})
}

func TestOriginalDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf()
		cfg.Discovery, cfg.LB.Policy = config.OriginalDst, config.ClusterProvided
		w := newWorld(t, &fakeNet{}, cfg)
		stop := w.run()
		to := func(a string) *Request {
			return &Request{Conn: &stream.ConnInfo{Local: netip.MustParseAddrPort(a)}}
		}
		for _, a := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"} {
			x, h, err := w.c().Acquire(context.Background(), to(a))
			if err != nil || h.Addr().String() != a || x.Conn().Remote.String() != a {
				t.Fatalf("%v %v", h, err)
			}
			x.Close()
		}
		w.expectConns(2, 2)
		if e := w.refused(&Request{}); e != ErrNoHealthy {
			t.Errorf("without a connection: %v", e)
		}
		for _, c := range w.net.conns {
			c.mu.Lock()
			c.usable = false // the peers close
			c.mu.Unlock()
		}
		time.Sleep(time.Minute)
		if n := len(w.c().Snapshot().Hosts); n != 0 {
			t.Errorf("%d unused destinations are remembered", n)
		}
		stop()
	})
}

// fakeDNS answers with what it holds.
type fakeDNS struct {
	answer atomic.Pointer[[]netip.Addr]
	asked  atomic.Int64
}

func (d *fakeDNS) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	d.asked.Add(1)
	if a := d.answer.Load(); a != nil {
		return append([]netip.Addr(nil), *a...), nil
	}
	return nil, errors.New("no such host")
}

func (d *fakeDNS) set(as ...string) {
	var out []netip.Addr
	for _, a := range as {
		out = append(out, netip.MustParseAddr(a))
	}
	d.answer.Store(&out)
}

func TestDNSClusters(t *testing.T) {
	addrs := func(w *world) []string {
		var out []string
		for _, h := range w.c().Snapshot().Hosts {
			out = append(out, h.Addr.String())
		}
		return out
	}
	for _, c := range []struct {
		kind        config.Discovery
		first, then []string
	}{
		{config.StrictDNS, []string{"10.0.0.1:443", "10.0.0.2:443"}, []string{"10.0.0.3:443"}},
		{config.LogicalDNS, []string{"10.0.0.2:443"}, []string{"10.0.0.3:443"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := clusterOf()
			cfg.Discovery, cfg.DNSRefresh = c.kind, 10*time.Second
			cfg.Endpoints = []*config.Endpoint{{Hostname: "example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 443), Weight: 1}}
			dns := &fakeDNS{}
			w := &world{t: t, net: &fakeNet{}}
			w.m = NewManager(Settings{Connect: w.net, Resolver: dns})
			w.apply(cfg)
			stop := w.run()
			time.Sleep(time.Second)
			if e := w.refused(&Request{}); e != ErrNoHealthy {
				t.Errorf("before the first answer: %v", e)
			}
			dns.set("fd00::1", "10.0.0.2", "10.0.0.1")
			time.Sleep(10 * time.Second)
			if diff := cmp.Diff(c.first, addrs(w)); diff != "" {
				t.Error(diff)
			}
			dns.answer.Store(nil) // a failure keeps the last answer
			time.Sleep(30 * time.Second)
			if diff := cmp.Diff(c.first, addrs(w)); diff != "" {
				t.Error("after a failed lookup:", diff)
			}
			dns.set("10.0.0.3")
			time.Sleep(10 * time.Second)
			if diff := cmp.Diff(c.then, addrs(w)); diff != "" {
				t.Error(diff)
			}
			w.apply()
			time.Sleep(time.Second)
			n := dns.asked.Load()
			time.Sleep(time.Minute)
			if dns.asked.Load() != n {
				t.Error("a cluster that left is still resolved")
			}
			stop()
		})
	}
}

func TestTransportByLabels(t *testing.T) {
	istio, plain := &config.UpstreamTLS{Workload: true}, &config.UpstreamTLS{SNI: "default"}
	c := &config.Cluster{TLS: plain, TLSMatches: []config.TransportMatch{
		{Name: "tlsMode-istio", Match: map[string]string{"tlsMode": "istio"}, TLS: istio},
		{Name: "raw", Match: map[string]string{"tlsMode": "raw"}},
	}}
	for _, x := range []struct {
		label string
		want  *config.UpstreamTLS
	}{{"istio", istio}, {"raw", nil}, {"", plain}} {
		ep := &config.Endpoint{}
		if x.label != "" {
			ep.Transport = map[string]string{"tlsMode": x.label}
		}
		if got, _ := tlsFor(c, ep); got != x.want {
			t.Errorf("label %q: %+v, want %+v", x.label, got, x.want)
		}
	}
}
