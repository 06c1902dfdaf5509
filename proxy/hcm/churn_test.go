package hcm

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/route"
)

// Routes, weights, endpoints and outlier settings change all the time, and no request may notice.
func TestConfigurationChangesLoseNoRequest(t *testing.T) {
	each(t, func(t *testing.T, d2, u2 bool) {
		app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		l := newLoop(t, d2, u2, app, nil)
		var addrs []netip.AddrPort
		for range 3 {
			addrs = append(addrs, serveHTTP(t, app))
		}
		var stop atomic.Bool
		var sent, bad atomic.Int64
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for !stop.Load() {
					sent.Add(1)
					resp, err := l.client.Post(l.url+"/", "text/plain", strings.NewReader("data"))
					if err != nil {
						bad.Add(1)
						t.Error(err)
						return
					}
					b, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err != nil || resp.StatusCode != 200 || string(b) != "data" {
						bad.Add(1)
						t.Errorf("%d %q %v", resp.StatusCode, b, err)
						return
					}
				}
			})
		}
		policies := []config.LBPolicy{config.LeastRequest, config.RoundRobin, config.Random, config.RingHash, config.Maglev}
		for i := range 40 {
			c := cluster("app")
			c.Protocol = l.view.Clusters["app"].Protocol
			c.LB = config.LB{Policy: policies[i%len(policies)], MaglevTable: 101}
			for k := range 1 + i%3 {
				c.Endpoints = append(c.Endpoints, &config.Endpoint{Addr: addrs[(i+k)%3], Weight: uint32(1 + (i+k)%4), Priority: uint32(i / 20 * (k % 2))})
			}
			if i%2 == 0 {
				c.Outlier = &config.Outlier{Consecutive5xx: 5, MaxEjectionPercent: 50}
			}
			tab := &route.Table{VirtualHosts: []*route.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*route.Route{{Forward: &route.Forward{Cluster: "app"}}}}}}
			if err := route.Build(tab); err != nil {
				t.Fatal(err)
			}
			v := &config.View{Clusters: map[string]*config.Cluster{"app": c}, Routes: map[string]*route.Table{"80": tab}}
			l.ups.Apply(v)
			l.m.deps.Live.Publish(v)
			for before := sent.Load(); sent.Load() < before+5 && bad.Load() == 0; {
				time.Sleep(100 * time.Microsecond) // real sockets: there is no fake time here
			}
		}
		stop.Store(true)
		wg.Wait()
		if sent.Load() < 200 {
			t.Errorf("only %d requests: too few to tell", sent.Load())
		}
	})
}
