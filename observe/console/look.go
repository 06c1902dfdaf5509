package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"weft.mesh/weft/api/admin"
)

// Times of looking.
const (
	period = time.Second
	// warmPeriod is between the first looks of a session, so that the first
	// rates are there soon.
	warmPeriod = 300 * time.Millisecond
	warmLooks  = 3
	// lookTimeout bounds one look at everything, controlTimeout what the control
	// plane takes of it: one that hangs must not hold up the rest.
	lookTimeout    = 5 * time.Second
	controlTimeout = time.Second
	// attention is how long a single request counts as looking.
	attention = 5 * time.Second
	// objectsAge is after how long objects are read again though the World is the same.
	objectsAge = 5 * time.Second

	maxScrapes = 8 // at a time
)

// proxyContainer is the sidecar's name in a pod, and a gateway's.
const proxyContainer = "istio-proxy"

// audience knows whether somebody looks.
type audience struct {
	wake chan struct{}

	mu      sync.Mutex // protects the following
	viewers int
	until   time.Time
}

func newAudience() *audience { return &audience{wake: make(chan struct{}, 1)} }

// touch counts one request as a short look.
func (a *audience) touch() {
	a.mu.Lock()
	a.until = time.Now().Add(attention)
	a.mu.Unlock()
	a.nudge()
}

// enter adds a viewer; false when there are too many.
func (a *audience) enter() bool {
	a.mu.Lock()
	ok := a.viewers < maxViewers
	if ok {
		a.viewers++
	}
	a.mu.Unlock()
	a.nudge()
	return ok
}

// leave takes a viewer away, who may be back after a reload of the page.
func (a *audience) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.viewers--
	a.until = time.Now().Add(attention)
}

func (a *audience) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *audience) looking() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.viewers > 0 || time.Now().Before(a.until)
}

// Run looks at the mesh while somebody watches, until ctx ends.
func (s *Server) Run(ctx context.Context) {
	warm := warmLooks
	for {
		if !s.audience.looking() {
			warm = warmLooks
			select {
			case <-ctx.Done():
				return
			case <-s.audience.wake:
			}
			continue
		}
		began := time.Now()
		s.look(ctx)
		wait := period
		if warm > 0 {
			warm--
			wait = warmPeriod
		}
		// A look at a big mesh may take longer than the period: breathe between.
		wait = max(wait-time.Since(began), period/10)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look reads everything once and publishes it.
func (s *Server) look(outer context.Context) {
	ctx, cancel := context.WithTimeout(outer, lookTimeout)
	defer cancel()
	old, _ := s.current()
	v := &view{at: time.Now()}
	var wg sync.WaitGroup
	wg.Go(func() { s.lookAtControl(ctx, v, old) })
	v.pods, v.podsErr = s.mesh.Pods(ctx)
	if v.podsErr != nil {
		v.pods = old.pods
	}
	v.scrapeErrs = s.scrape(ctx, v.pods)
	wg.Wait()
	v.number(old)
	if outer.Err() == nil {
		s.publish(v)
	}
}

// lookAtControl reads the control plane's status, and objects when they may
// have changed or what is known of them is old.
func (s *Server) lookAtControl(ctx context.Context, v, old *view) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	v.status, v.objects, v.objectsAt = old.status, old.objects, old.objectsAt
	status, err := s.mesh.Status(ctx)
	if err != nil {
		v.statusErr, v.objectsErr = err, err
		return
	}
	v.status = status
	same := old.status != nil && old.status.World == status.World && old.status.Objects == status.Objects
	if same && old.objectsErr == nil && v.at.Sub(old.objectsAt) < objectsAge {
		return
	}
	v.objectsAt = v.at
	objects, err := s.mesh.Objects(ctx)
	if err != nil {
		v.objectsErr = err
		return
	}
	v.objects = objects
}

// hasProxy says whether a pod's metrics can be read.
func hasProxy(p *admin.Pod) bool {
	return p.Phase == admin.PodRunning && slices.ContainsFunc(p.Containers, func(c admin.Container) bool { return c.Name == proxyContainer && c.PID != 0 })
}

func podKey(p *admin.Pod) string { return p.Namespace + "/" + p.Name }

// scrape reads all proxies' metrics, a few at a time, and returns what failed by pod.
func (s *Server) scrape(ctx context.Context, pods []admin.Pod) map[string]string {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed = map[string]string{}
		slots  = make(chan struct{}, maxScrapes)
		keep   = map[string]bool{}
	)
	for i := range pods {
		p := &pods[i]
		if !hasProxy(p) {
			continue
		}
		keep[podKey(p)] = true
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.scrapeOne(ctx, p); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[podKey(p)] = err.Error()
			}
		})
	}
	wg.Wait()
	s.store.Tick(time.Now(), func(id string) bool { return keep[id] })
	return failed
}

func (s *Server) scrapeOne(ctx context.Context, p *admin.Pod) error {
	body, err := s.mesh.Metrics(ctx, p.Namespace, p.Name)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := s.store.Scrape(podKey(p), p.Started, time.Now(), body); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 1)) // so that the connection is used again
	return nil
}

// publish replaces what is shown and wakes those who wait for it.
func (s *Server) publish(v *view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur = v
	clear(s.encoded)
	close(s.fresh)
	s.fresh = make(chan struct{})
}

// current is what is shown, and a channel that is closed when there is newer.
func (s *Server) current() (*view, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur, s.fresh
}
