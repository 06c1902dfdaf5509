package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"weft.mesh/weft/xds"
)

// result is what was measured of one size.
type result struct {
	size
	Connect  phase     `json:"connect"`
	Idle     float64   `json:"idle_cpu"` // processors
	RSS      int64     `json:"rss_bytes"`
	Route    changes   `json:"virtual_service_change"`
	Endpoint changes   `json:"endpoint_change"`
	Restart  phase     `json:"restart"`
	Churn    *churning `json:"churn,omitempty"`
	RSSEnd   int64     `json:"rss_end_bytes"`
	Peak     int64     `json:"rss_peak_bytes"`
}

// phase is something that all proxies go through once.
type phase struct {
	Took    time.Duration `json:"took_ns"`
	CPU     time.Duration `json:"cpu_ns"`
	Bytes   int64         `json:"bytes"`
	Ready   time.Duration `json:"ready_ns,omitempty"`
	Refused int64         `json:"refused"`
}

// changes are several changes of one kind, one after the other.
type changes struct {
	Times     int             `json:"times"`
	CPU       time.Duration   `json:"cpu_ns"` // each
	Last      []time.Duration `json:"last_ack_ns"`
	P50       time.Duration   `json:"ack_p50_ns"` // of all proxies of all changes
	P99       time.Duration   `json:"ack_p99_ns"`
	Bytes     int64           `json:"bytes"`     // each
	Responses int64           `json:"responses"` // each
	Resources int64           `json:"resources"` // each
}

type churning struct {
	Rate     int           `json:"rate"`
	Took     time.Duration `json:"took_ns"`
	Done     int           `json:"changes"`
	CPU      float64       `json:"cpu"` // processors
	Bytes    int64         `json:"bytes"`
	Settled  time.Duration `json:"settled_after_ns"` // after the last change
	Response int64         `json:"responses"`
}

// bench measures one size.
type bench struct {
	cluster *cluster
	plane   *plane
	fleet   *fleet
	o       *options
	log     io.Writer
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, "  "+format+"\n", args...) }

// run measures everything; what came before an error is in the result.
func (b *bench) run(ctx context.Context) (*result, error) {
	r := &result{size: b.cluster.size}
	for _, step := range []func(context.Context, *result) error{b.connect, b.idle, b.routes, b.endpoints, b.restart, b.churn} {
		if err := step(ctx, r); err != nil {
			return r, err
		}
	}
	r.RSSEnd, r.Peak = b.plane.memory()
	b.say("resident at the end %.0f MB, at most %.0f MB", mega(r.RSSEnd), mega(r.Peak))
	return r, nil
}

func mega(n int64) float64 { return float64(n) / 1e6 }

// settle gives the control plane time to count what was acknowledged last.
const settle = 100 * time.Millisecond

func (b *bench) connect(ctx context.Context, r *result) error {
	if err := b.plane.ready(ctx); err != nil {
		return err
	}
	cpu, began, counts := b.plane.cpu(), time.Now(), b.fleet.traffic.now()
	b.fleet.start(ctx)
	if err := b.fleet.complete(ctx, 5*time.Minute); err != nil {
		return b.explain(err)
	}
	r.Connect = phase{Took: time.Since(began) - quietTime, CPU: b.plane.cpu() - cpu, Bytes: b.fleet.traffic.now().since(counts).bytes, Refused: b.fleet.traffic.refused.Load()}
	b.say("all proxies connected and complete after %s, CPU %s, %.1f MB, %d refused", r.Connect.Took.Round(time.Millisecond), r.Connect.CPU.Round(time.Millisecond), mega(r.Connect.Bytes), r.Connect.Refused)
	return nil
}

// explain adds why the control plane turned somebody away.
func (b *bench) explain(err error) error {
	if why := b.fleet.traffic.reason.Load(); why != nil {
		return fmt.Errorf("%w (last refusal: %s)", err, *why)
	}
	return err
}

// idleLooks are the times that idling is looked at: the least counts, as memory may be given back meanwhile.
const idleLooks = 3

func (b *bench) idle(ctx context.Context, r *result) error {
	if err := pause(ctx, b.o.rest); err != nil { // what connecting took is given back
		return err
	}
	for i := range idleLooks {
		cpu, began := b.plane.cpu(), time.Now()
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		share := (b.plane.cpu() - cpu).Seconds() / time.Since(began).Seconds()
		if i == 0 || share < r.Idle {
			r.Idle = share
		}
	}
	r.RSS, r.Peak = b.plane.memory()
	b.say("idle: %.3f processors, resident %.0f MB, at most %.0f MB", r.Idle, mega(r.RSS), mega(r.Peak))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// repeat makes changes one after the other. CPU is that of the whole time, without what idling costs.
func (b *bench) repeat(ctx context.Context, r *result, what string, one func(i int) (change, error)) (changes, error) {
	out := changes{Times: b.o.times}
	var all []time.Duration
	if _, err := one(0); err != nil { // what is made once is not counted
		return out, b.explain(err)
	}
	cpu, began := b.plane.cpu(), time.Now()
	for i := range b.o.times {
		c, err := one(i + 1)
		if err != nil {
			return out, b.explain(err)
		}
		out.Last = append(out.Last, c.latencies[len(c.latencies)-1])
		out.Bytes, out.Responses, out.Resources = out.Bytes+c.bytes, out.Responses+c.responses, out.Resources+c.resources
		all = append(all, c.latencies...)
	}
	if err := pause(ctx, settle); err != nil {
		return out, err
	}
	spent := b.plane.cpu() - cpu - time.Duration(r.Idle*float64(time.Since(began)))
	n := int64(b.o.times)
	out.CPU, out.Bytes, out.Responses, out.Resources = spent/time.Duration(n), out.Bytes/n, out.Responses/n, out.Resources/n
	slices.Sort(all)
	slices.Sort(out.Last)
	out.P50, out.P99 = all[len(all)/2], all[len(all)*99/100]
	b.say("%s: CPU %s each, %d responses with %d resources, %.1f KB; acknowledged after p50 %s, p99 %s; the last after %s at most", what, out.CPU.Round(100*time.Microsecond), out.Responses,
		out.Resources, float64(out.Bytes)/1e3, out.P50.Round(time.Millisecond), out.P99.Round(time.Millisecond), out.Last[len(out.Last)-1].Round(time.Millisecond))
	return out, nil
}

func (b *bench) routes(ctx context.Context, r *result) (err error) {
	r.Route, err = b.repeat(ctx, r, "VirtualService change", func(i int) (change, error) {
		return b.fleet.follow(ctx, xds.RouteType, "80", func() error { return b.cluster.changeRoute(ctx, i%r.Routes, i) })
	})
	return err
}

func (b *bench) endpoints(ctx context.Context, r *result) (err error) {
	r.Endpoint, err = b.repeat(ctx, r, "endpoint change", func(i int) (change, error) {
		s := (i * 7) % r.Services
		return b.fleet.follow(ctx, xds.EndpointType, xds.OutboundCluster(80, "", r.host(s)), func() error { return b.cluster.changeEndpoint(ctx, s) })
	})
	return err
}

// restart kills the control plane and starts another.
func (b *bench) restart(ctx context.Context, r *result) error {
	refused, counts := b.fleet.traffic.refused.Load(), b.fleet.traffic.now()
	streams := b.fleet.traffic.streams.Load()
	b.plane.kill()
	if err := b.fleet.await(ctx, "disconnect", 10*time.Second, func(_ int, p *proxy) bool { p.mu.Lock(); defer p.mu.Unlock(); return !p.live }); err != nil {
		return err
	}
	began := time.Now()
	if err := b.plane.start(); err != nil {
		return err
	}
	if err := b.plane.ready(ctx); err != nil {
		return err
	}
	r.Restart.Ready = time.Since(began)
	if err := b.fleet.complete(ctx, 5*time.Minute); err != nil {
		return b.explain(err)
	}
	r.Restart.Took = time.Since(began) - quietTime
	r.Restart.CPU, r.Restart.Bytes, r.Restart.Refused = b.plane.cpu(), b.fleet.traffic.now().since(counts).bytes, b.fleet.traffic.refused.Load()-refused
	b.say("restart: ready after %s, all proxies back after %s (%d streams), CPU %s, %.1f MB, %d refused", r.Restart.Ready.Round(time.Millisecond), r.Restart.Took.Round(time.Millisecond),
		b.fleet.traffic.streams.Load()-streams, r.Restart.CPU.Round(time.Millisecond), mega(r.Restart.Bytes), r.Restart.Refused)
	return pause(ctx, b.o.rest)
}

// churn changes endpoints at a rate, those of all services in turn.
func (b *bench) churn(ctx context.Context, r *result) error {
	if b.o.churn == 0 {
		return nil
	}
	c := &churning{Rate: b.o.rate}
	cpu, began, counts := b.plane.cpu(), time.Now(), b.fleet.traffic.now()
	tick := time.NewTicker(time.Second / time.Duration(b.o.rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	work, fail := make(chan int), make(chan error, 1)
	for range writers {
		wg.Go(func() {
			for s := range work {
				if err := b.cluster.changeEndpoint(ctx, s); err != nil {
					select {
					case fail <- err:
					default:
					}
				}
			}
		})
	}
	for i := 0; time.Since(began) < b.o.churn && ctx.Err() == nil; i++ {
		<-tick.C
		work <- i % r.Services
		c.Done++
	}
	close(work)
	wg.Wait()
	select {
	case err := <-fail:
		return err
	default:
	}
	c.Took = time.Since(began)
	c.CPU = (b.plane.cpu() - cpu).Seconds() / c.Took.Seconds()
	last := time.Now()
	if err := b.fleet.quiet(ctx, time.Minute); err != nil {
		return err
	}
	c.Settled = time.Since(last) - quietTime
	d := b.fleet.traffic.now().since(counts)
	c.Bytes, c.Response = d.bytes, d.responses
	r.Churn = c
	b.say("churn: %d endpoint changes in %s (%.0f/s): %.3f processors, %d responses, %.1f MB", c.Done, c.Took.Round(time.Second), float64(c.Done)/c.Took.Seconds(), c.CPU, c.Response, mega(c.Bytes))
	return nil
}
