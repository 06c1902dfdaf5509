package server

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/upstream"
)

// noNames answers when told to.
type noNames chan []netip.Addr

func (n noNames) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	select {
	case a := <-n:
		return a, nil
	case <-ctx.Done():
		return nil, errors.New("no answer")
	}
}

func TestASuccessorWaitsForTheFirstAnswersOfDNSClusters(t *testing.T) {
	names := make(noNames)
	s := &Server{upstreams: upstream.NewManager(upstream.Settings{Dialer: dialer{}, Resolver: names})}
	if !s.resolved() {
		t.Error("no cluster, and yet it waits")
	}
	s.upstreams.Apply(&config.View{Clusters: map[string]*config.Cluster{
		"dns":    {Name: "dns", Discovery: config.StrictDNS, Endpoints: []*config.Endpoint{{Hostname: "example.org", Addr: netip.AddrPortFrom(netip.Addr{}, 80), Weight: 1}}},
		"static": {Name: "static"}, // without endpoints for good
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.upstreams.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if s.resolved() {
		t.Error("resolved before there was an answer")
	}
	names <- []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for !s.resolved() { // the test's own time limit ends a wait in vain
		select {
		case <-t.Context().Done():
			t.Fatal("not resolved after the answer")
		default:
		}
	}
}
