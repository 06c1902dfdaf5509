package server

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/xdsclient"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/canon"
)

// published records what a configurator makes current.
type published struct {
	clusters  [][]string
	listeners []int
	fail      error
}

func newTestConfigurator() (*configurator, *published) {
	p := &published{}
	c := newConfigurator(compile.New(compile.Settings{}), &config.Live{}, slog.New(slog.DiscardHandler))
	c.clusters = func(v *config.View) {
		var names []string
		for n := range v.Clusters {
			names = append(names, n)
		}
		slices.Sort(names)
		p.clusters = append(p.clusters, names)
	}
	c.listeners = func(v *config.View) error {
		if p.fail != nil {
			return p.fail
		}
		p.listeners = append(p.listeners, len(v.Listeners))
		return nil
	}
	return c, p
}

func cluster(t *testing.T, name string) *xds.Resource {
	return resource(t, `{'@type': `+xds.ClusterType+`, name: `+name+`, type: STATIC, connect_timeout: 1s}`)
}

func resource(t *testing.T, text string) *xds.Resource {
	t.Helper()
	rs, err := canon.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rs[0]
}

func tcpListener(t *testing.T) *xds.Resource {
	return resource(t, `{'@type': `+xds.ListenerType+`, name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{filters: [{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: a}}]}]}`)
}

func set(typeURL string, rs ...*xds.Resource) xdsclient.Update {
	return xdsclient.Update{TypeURL: typeURL, Set: rs}
}

func TestAClusterThatWentStaysForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newTestConfigurator()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go c.run(ctx)
		c.Apply(set(xds.ClusterType, cluster(t, "a"), cluster(t, "b")))
		c.Commit()
		c.Apply(xdsclient.Update{TypeURL: xds.ClusterType, Removed: []string{"a"}})
		c.Commit()
		synctest.Wait()
		last := func() []string {
			c.mu.Lock() // the configurator calls us with it held
			defer c.mu.Unlock()
			return p.clusters[len(p.clusters)-1]
		}
		if got := last(); !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("clusters = %q, want the one that went to stay", got)
		}
		if c.live.View().Clusters["a"] != nil {
			t.Error("the View still has it")
		}
		time.Sleep(linger + time.Millisecond)
		synctest.Wait()
		if got := last(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("clusters = %q after %v", got, linger)
		}
	})
}

func TestListenersThatCannotBeOpenedAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newTestConfigurator()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go c.run(ctx)
		p.fail = errors.New("port 1 is taken")
		c.Apply(set(xds.ClusterType, cluster(t, "a")))
		c.Apply(set(xds.ListenerType, tcpListener(t)))
		c.Commit()
		if ok, why := c.ready(); ok || why != "port 1 is taken" {
			t.Errorf("ready = %v, %q", ok, why)
		}
		c.mu.Lock()
		p.fail = nil
		c.mu.Unlock()
		time.Sleep(bindRetry + time.Millisecond)
		synctest.Wait()
		if ok, why := c.ready(); !ok || len(p.listeners) != 1 {
			t.Errorf("ready = %v, %q, published %v", ok, why, p.listeners)
		}
	})
}

func TestReadinessNeedsClustersListenersAndWhatTheyReferTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newTestConfigurator()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go c.run(ctx)
		notReady := func(want string) {
			t.Helper()
			c.Commit()
			if ok, why := c.ready(); ok || !strings.Contains(why, want) {
				t.Errorf("ready = %v, %q; want not, because of %q", ok, why, want)
			}
		}
		notReady("no configuration")
		c.Apply(set(xds.ClusterType, resource(t, `{'@type': `+xds.ClusterType+`, name: a, type: EDS, connect_timeout: 1s, eds_cluster_config: {eds_config: {ads: {}}}}`)))
		notReady("no configuration")
		c.Apply(set(xds.ListenerType))
		notReady("EDS a")
		time.Sleep(compile.DefaultFetchTimeout + time.Millisecond)
		synctest.Wait()
		if ok, why := c.ready(); !ok {
			t.Errorf("not ready after the wait ended: %s", why)
		}
	})
}

func TestRefusalsAreShownUntilTheResourceIsTaken(t *testing.T) {
	c, _ := newTestConfigurator()
	bad := resource(t, `{'@type': `+xds.ClusterType+`, name: a, type: STATIC, connect_timeout: 1s, track_timeout_budgets: true}`)
	refused, why := c.Apply(set(xds.ClusterType, bad, cluster(t, "b")))
	if !slices.Equal(refused, []string{"a"}) || !strings.Contains(why, `CDS "a"`) {
		t.Errorf("refused %q: %s", refused, why)
	}
	if got := c.refusals(xds.ClusterType); len(got) != 1 || !strings.Contains(got[0].Reason, "track_timeout_budgets") {
		t.Errorf("refusals = %v", got)
	}
	if _, why := c.Apply(set(xds.ClusterType, cluster(t, "a"))); why != "" || len(c.refusals(xds.ClusterType)) != 0 {
		t.Errorf("still refused: %s %v", why, c.refusals(xds.ClusterType))
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"role":    func(s *Settings) { s.Role = "waypoint" },
		"address": func(s *Settings) { s.XDS = "" },
		"name":    func(s *Settings) { s.Name = "" },
		"IP":      func(s *Settings) { s.IP = netip.Addr{} },
		"roots":   func(s *Settings) { s.Identity, s.CARoots = nil, []byte("rubbish") },
		"admin":   func(s *Settings) { s.Admin = "0.0.0.0:0" },
	} {
		good := testServer(t, xds.Sidecar).set
		change(&good)
		if _, err := New(good); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestOurWorkloadIsDescribedByIstiosLabels(t *testing.T) {
	s := Settings{Name: "p", Workload: "w", Namespace: "n", ServiceAccount: "a", TrustDomain: "td", Cluster: "c",
		Labels: map[string]string{"app": "x", "version": "v2", "service.istio.io/canonical-name": "canon"}}
	if got := s.self(); got.CanonicalName != "canon" || got.CanonicalRevision != "v2" || got.App != "x" || got.Principal != "spiffe://td/ns/n/sa/a" {
		t.Errorf("self = %+v", got)
	}
	s.Labels = nil
	if got := s.self(); got.CanonicalName != "w" || got.CanonicalRevision != "latest" {
		t.Errorf("self without labels = %+v", got)
	}
}
