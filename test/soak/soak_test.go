package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"weft.mesh/weft/proxy/proxytest"
	"weft.mesh/weft/xds"
)

const (
	defaultTime = 20 * time.Second
	defaultRate = 60 // operations per second
	workers     = 24
	extras      = 4 // listeners that come and go
)

// run is one soak.
type run struct {
	t       *testing.T
	y       *tally
	plane   *plane
	proxies [3]*proxy // gateway, a, b
	nodes   [3]node
	flaky   *backend
	began   time.Time
	time    time.Duration
	seed    uint64

	// The configuration in force and the gateway's certificate; one goroutine changes them.
	mode      mode
	cert, key string
}

func setting(t *testing.T, name, def string) string {
	if s := os.Getenv(name); s != "" {
		return s
	}
	return def
}

func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(setting(t, "WEFT_SOAK_TIME", defaultTime.String()))
	if err != nil {
		t.Fatal(err)
	}
	rate, err := strconv.Atoi(setting(t, "WEFT_SOAK_RATE", strconv.Itoa(defaultRate)))
	if err != nil || rate < 1 || rate > 5000 {
		t.Fatalf("WEFT_SOAK_RATE: %v, want operations per second", err)
	}
	seed, err := strconv.ParseUint(setting(t, "WEFT_SOAK_SEED", strconv.FormatInt(time.Now().UnixNano(), 10)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v at %d operations/s, WEFT_SOAK_SEED=%d", length, rate, seed)
	s := setup(t, seed)
	s.time = length
	base := s.usages()
	samples := s.traffic(rate)
	s.summary(base, samples)
}

// setup starts upstreams, control plane and proxies.
func setup(t *testing.T, seed uint64) *run {
	bin := build(t)
	y := newTally(t)
	s := &run{t: t, y: y, plane: startPlane(t, y), flaky: newBackend(t, y), seed: seed}
	one, two := newBackend(t, y), newBackend(t, y)
	s.cert, s.key = edgeCertificate(t, s.plane.ca)
	for i, role := range []string{"gateway", "a", "b"} {
		s.nodes[i] = node{Role: role, Plain: proxytest.Port(t), TLS: proxytest.Port(t), TCP: proxytest.Port(t), FlakyTCP: proxytest.Port(t),
			Moved: proxytest.Port(t), Stable1: one.ports, Stable2: two.ports, Flaky: s.flaky.ports,
			ExtraPorts: []int{proxytest.Port(t), proxytest.Port(t), proxytest.Port(t), proxytest.Port(t)}}
	}
	s.nodes[1].Peer = s.nodes[2].Plain
	s.mode = mode{endpoints: [3]int{3, 3, 3}, split: 50, extra: 2}
	s.publish()
	for i, role := range []string{"gateway", "sidecar", "sidecar"} {
		s.proxies[i] = startProxy(t, y, bin, s.plane, s.nodes[i].Role, role)
	}
	for _, x := range s.proxies {
		x.ready(t)
	}
	// Each way must work before anything is broken.
	r := rand.New(rand.NewPCG(seed, 0))
	for via := range 2 {
		h1 := s.h1(r)
		defer h1.close()
		for _, o := range []op{{h2: false}, {h2: true}, {flaky: true}, {flaky: true, h2: true}} {
			o.id, o.method, o.send, o.via, o.size = fmt.Sprintf("first%d%t%t", via, o.h2, o.flaky), "GET", -1, via, 100
			var err error
			proxytest.Until(t, "the first request over "+o.path(), func() bool {
				err = h1.run(s.addr(via), o)
				return err == nil
			})
			if err != nil {
				t.Fatalf("before any fault: %s via %d: %v", o.path(), via, err)
			}
		}
	}
	return s
}

func (s *run) addr(via int) string { return fmt.Sprintf("127.0.0.1:%d", s.nodes[via].Plain) }

func (s *run) h1(r *rand.Rand) *h1Client {
	return &h1Client{y: s.y, r: r, conns: map[string]*h1Conn{}}
}

// publish makes s.mode the configuration of all nodes.
func (s *run) publish() {
	nodes := map[string][]*xds.Resource{}
	for _, n := range s.nodes {
		n.mode, n.CertPEM, n.KeyPEM = s.mode, s.cert, s.key
		nodes[n.Role] = n.resources(s.t)
	}
	s.plane.publish(nodes)
}

// traffic runs clients and faults for s.time and returns what the proxies held meanwhile.
func (s *run) traffic(rate int) [][3]usage {
	s.began = time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), s.began.Add(s.time))
	defer cancel()
	var wg sync.WaitGroup
	tickets := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				close(tickets)
				return
			case <-tick.C:
			}
			select {
			case tickets <- struct{}{}:
			default:
				s.y.note("skipped because all clients were busy", 1)
			}
		}
	})
	clients := newGRPC(s.t, [2]string{s.addr(viaGateway), s.addr(viaPair)})
	h2s := []*http2.Transport{newH2(), newH2(), newH2()}
	for i := range workers {
		wg.Go(func() { s.work(ctx, i, tickets, clients, h2s[i%len(h2s)]) })
	}
	for i, f := range []func(context.Context, *rand.Rand){s.kill, s.churn, s.cut, s.garbage} {
		wg.Go(func() { f(ctx, rand.New(rand.NewPCG(s.seed, uint64(1000+i)))) })
	}
	samples := s.sample(ctx)
	wg.Wait()
	for _, t := range h2s {
		t.CloseIdleConnections()
	}
	for _, c := range clients {
		_ = c.Close()
	}
	return samples
}

// work is one client.
func (s *run) work(ctx context.Context, i int, tickets <-chan struct{}, g grpcClients, h2 *http2.Transport) {
	r := rand.New(rand.NewPCG(s.seed, uint64(i)))
	h1 := s.h1(r)
	defer h1.close()
	n := 0
	for range tickets {
		n++
		s.one(r, fmt.Sprintf("w%d-%d", i, n), h1, g, h2)
	}
}

// one does one operation.
func (s *run) one(r *rand.Rand, id string, h1 *h1Client, g grpcClients, h2 *http2.Transport) {
	o := newOp(r, id)
	n := &s.nodes[o.via]
	addr := s.addr(o.via)
	switch r.IntN(6) {
	case 0:
		addr = fmt.Sprintf("127.0.0.1:%d", n.Moved)
	case 1:
		if o.via == viaGateway {
			addr = fmt.Sprintf("tls:127.0.0.1:%d", n.TLS)
		}
	}
	began := time.Now()
	var kind string
	var err error
	switch k := r.IntN(100); {
	case k < 40:
		kind = "h1"
		if o.pipeline > 0 {
			kind = "h1 pipelined"
		}
		err = h1.run(addr, o)
	case k < 65:
		kind, o.pipeline, o.expect = "h2", 0, false
		err = runH2(context.Background(), h2, addr, o)
	case k < 80:
		o.plain(r)
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout+o.lasts)
		addr = s.addr(o.via)
		kind, err = g.run(ctx, r, o)
		cancel()
	case k < 89:
		o.plain(r)
		kind, addr = "TCP", fmt.Sprintf("127.0.0.1:%d", n.TCP)
		if o.flaky {
			addr = fmt.Sprintf("127.0.0.1:%d", n.FlakyTCP)
		}
		err = runTCP(addr, r, o)
	case k < 97:
		o.plain(r)
		o.h2 = false
		kind, err = "upgrade", runUpgrade(addr, r, o)
	default:
		s.extra(r, o, h1)
		return
	}
	if o.lasts > 0 && kind != "gRPC unary" {
		kind = "long " + kind
	}
	o.to = s.where(addr)
	s.y.done(kind, o, began, err)
}

// where names an address.
func (s *run) where(addr string) string {
	for _, n := range s.nodes {
		for name, port := range map[string]int{"plain": n.Plain, "moved": n.Moved, "TLS": n.TLS, "TCP": n.TCP, "flaky TCP": n.FlakyTCP} {
			if strings.HasSuffix(addr, fmt.Sprintf(":%d", port)) {
				return n.Role + " " + name
			}
		}
	}
	return addr
}

// plain takes away what only HTTP requests can ask for, and lets some last.
func (o *op) plain(r *rand.Rand) {
	o.method, o.pipeline, o.flush, o.expect = "GET", 0, false, false
	if o.fault = noFault; r.IntN(10) == 0 {
		o.fault = abort
	}
	if r.IntN(16) == 0 {
		o.lasts = between(r, time.Second, 6*time.Second)
	}
}

// extra talks to a listener that may not be there. A right answer counts; none may be wrong.
func (s *run) extra(r *rand.Rand, o op, h1 *h1Client) {
	o.plain(r)
	o.fault, o.flaky, o.h2, o.send, o.lasts = noFault, false, false, -1, 0
	addr := fmt.Sprintf("127.0.0.1:%d", s.nodes[o.via].ExtraPorts[r.IntN(extras)])
	began := time.Now()
	err := h1.run(addr, o)
	h1.drop(addr)
	if err != nil && !isWrong(err) {
		s.y.count("listener was away", 1)
		return
	}
	s.y.done("h1 on listeners that come and go", o, began, err)
}

// sample looks at the proxies until the time is over.
func (s *run) sample(ctx context.Context) (out [][3]usage) {
	every := max(s.time/200, 2*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := time.Now()
	for {
		select {
		case <-ctx.Done():
			return out
		case <-tick.C:
		}
		u := s.usages()
		out = append(out, u)
		if time.Since(said) > time.Minute {
			said = time.Now()
			_, text := s.y.summary()
			s.t.Logf("%v: %s; %v", time.Since(s.began).Round(time.Second), text, u)
		}
	}
}

func (s *run) usages() (out [3]usage) {
	for i, x := range s.proxies {
		u, err := x.usage()
		if err != nil {
			s.y.fail("%s cannot be asked: %v", x.name, err)
		}
		out[i] = u
	}
	return out
}

// Bounds of growth, from the second fifth of a run to its last.
const (
	moreGoroutines = 50
	moreFDs        = 30
	moreRSS        = 24 << 20
	quietSlack     = 12 // goroutines and descriptors that may be left when everything is quiet again
)

// summary waits for quiet, judges growth and prints the last line.
func (s *run) summary(base [3]usage, samples [][3]usage) {
	s.mode.extra, s.mode.endpoints = 2, [3]int{3, 3, 3}
	s.publish()
	quiet := s.usages()
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if quiet = s.usages(); !slices.ContainsFunc([]int{0, 1, 2}, func(i int) bool {
			return quiet[i].goroutines > base[i].goroutines+quietSlack || quiet[i].fds > base[i].fds+quietSlack
		}) {
			break
		}
	}
	races := 0
	for i, x := range s.proxies {
		if quiet[i].goroutines > base[i].goroutines+quietSlack || quiet[i].fds > base[i].fds+quietSlack {
			text, _ := x.get("/debug/pprof/goroutine?debug=1")
			s.y.fail("%s does not give back what it held: %v before, %v after\n%.6000s", x.name, base[i], quiet[i], text)
		}
		s.growth(i, samples)
		races += x.races()
	}
	total, text := s.y.summary()
	for i, x := range s.proxies {
		s.t.Logf("%s: before %v, after %v", x.name, base[i], quiet[i])
	}
	s.t.Logf("soak: %v, %d operations; %s; %d data races", s.time, total, text, races)
	if total == 0 {
		s.t.Error("nothing happened")
	}
}

// growth compares medians of an early part of the run and of its end.
func (s *run) growth(i int, samples [][3]usage) {
	if s.time < 2*time.Minute || len(samples) < 20 {
		return
	}
	n := len(samples)
	median := func(from, to int, of func(usage) int64) int64 {
		var v []int64
		for _, u := range samples[from:to] {
			v = append(v, of(u[i]))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	for _, k := range []struct {
		name string
		of   func(usage) int64
		more int64
	}{
		{"goroutines", func(u usage) int64 { return int64(u.goroutines) }, moreGoroutines},
		{"descriptors", func(u usage) int64 { return int64(u.fds) }, moreFDs},
		{"bytes of resident memory", func(u usage) int64 { return u.rss }, moreRSS},
	} {
		a, b := median(n/5, 2*n/5, k.of), median(4*n/5, n, k.of)
		s.t.Logf("%s: %s: %d in the second fifth, %d in the last", s.proxies[i].name, k.name, a, b)
		if b > a+a/5+k.more {
			s.y.fail("%s: %s grow: %d in the second fifth of the run, %d in the last", s.proxies[i].name, k.name, a, b)
		}
	}
}
