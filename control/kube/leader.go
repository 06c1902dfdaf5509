package kube

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/kube/kubeclient"
)

// Times of the lease, as client-go's defaults: a leader that was killed is
// replaced within duration and one attempt.
const (
	leaseDuration = 15 * time.Second
	leaseRenew    = 10 * time.Second // a leader that cannot renew for so long stops
	leaseEvery    = 2 * time.Second
)

// Elector holds a Lease so that one replica writes. It is client-go's algorithm
// on one object: who sees the same holder for the lease's duration, by its
// own clock, may take it; a conflict means that another was faster.
type Elector struct {
	Client    *kubeclient.Client
	Namespace string
	Name      string // of the Lease
	Identity  string // of this replica
	Log       *slog.Logger

	duration, renew, every time.Duration // tests
	leading                atomic.Bool
}

// Leading tells whether this replica writes.
func (e *Elector) Leading() bool { return e.leading.Load() }

// Run calls lead each time this replica becomes the leader, with a context that
// ends when it no longer is, and waits for it. It returns when ctx ends, and gives the lease up.
func (e *Elector) Run(ctx context.Context, lead func(context.Context)) {
	if e.duration == 0 {
		e.duration, e.renew, e.every = leaseDuration, leaseRenew, leaseEvery
	}
	s := &leaseState{e: e}
	for ctx.Err() == nil {
		if s.try(ctx) {
			e.lead(ctx, s, lead)
		}
		sleep(ctx, e.every+time.Duration(rand.Int64N(int64(e.every/2)+1)))
	}
}

// lead runs while the lease can be renewed.
func (e *Elector) lead(ctx context.Context, s *leaseState, lead func(context.Context)) {
	e.leading.Store(true)
	e.Log.Info("kubernetes: this replica writes status and other objects from now on", "lease", e.Name)
	part, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { lead(part) })
	// The end counts from before a request, and a request does not last beyond it: others wait for
	// the lease's duration from when it was written, and must not find this replica still writing.
	for end := time.Now().Add(e.renew); ctx.Err() == nil && time.Now().Before(end); {
		sleep(ctx, min(e.every, time.Until(end)))
		asked := time.Now()
		if ctx.Err() != nil || !asked.Before(end) {
			break
		}
		if renewal, stop := context.WithDeadline(ctx, end); s.try(renewal) {
			stop()
			end = asked.Add(e.renew)
		} else if stop(); s.lost {
			break
		}
	}
	cancel()
	wg.Wait()
	e.leading.Store(false)
	if ctx.Err() != nil {
		s.release()
		return
	}
	e.Log.Warn("kubernetes: this replica no longer writes: the lease could not be renewed", "lease", e.Name)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// leaseState is what one replica has seen of the lease.
type leaseState struct {
	e      *Elector
	seen   string    // resourceVersion of the last look
	at     time.Time // when it first was this
	lost   bool      // another has it
	failed bool      // the last attempt got no answer, and it was said
}

// try takes or renews the lease.
func (s *leaseState) try(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, s.e.renew/2)
	defer cancel()
	c := s.e.Client.Dynamic.Resource(leases).Namespace(s.e.Namespace)
	l, err := c.Get(ctx, s.e.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		l = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": s.e.Name, "namespace": s.e.Namespace}}}
		s.hold(l, 0)
		l, err = c.Create(ctx, l, metav1.CreateOptions{FieldManager: FieldManager})
		return s.held(l, err)
	}
	if err != nil {
		return s.held(nil, err)
	}
	holder, _, _ := unstructured.NestedString(l.Object, "spec", "holderIdentity")
	if v := l.GetResourceVersion(); v != s.seen {
		s.seen, s.at = v, time.Now()
	}
	mine := holder == s.e.Identity
	if s.lost = holder != "" && !mine; s.lost && time.Since(s.at) < s.e.duration {
		return false
	}
	n, _, _ := unstructured.NestedInt64(l.Object, "spec", "leaseTransitions")
	if !mine {
		n++
	}
	s.hold(l, n)
	l, err = c.Update(ctx, l, metav1.UpdateOptions{FieldManager: FieldManager})
	return s.held(l, err)
}

func (s *leaseState) held(l *unstructured.Unstructured, err error) bool {
	if err != nil {
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !s.failed {
			s.failed = true
			s.e.Log.Warn("kubernetes: the lease of writers cannot be read or written; nothing is written until it can", "lease", s.e.Namespace+"/"+s.e.Name, "error", err)
		}
		return false
	}
	s.seen, s.at, s.lost, s.failed = l.GetResourceVersion(), time.Now(), false, false
	return true
}

// hold writes this replica into the lease.
func (s *leaseState) hold(l *unstructured.Unstructured, transitions int64) {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	spec, _ := l.Object["spec"].(map[string]any)
	if spec == nil {
		spec = map[string]any{}
		l.Object["spec"] = spec
	}
	if spec["holderIdentity"] != s.e.Identity {
		spec["acquireTime"] = now
	}
	spec["holderIdentity"], spec["renewTime"], spec["leaseTransitions"] = s.e.Identity, now, transitions
	spec["leaseDurationSeconds"] = max(1, int64(s.e.duration/time.Second))
}

// release gives the lease up, so that the next need not wait for it to run out.
func (s *leaseState) release() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c := s.e.Client.Dynamic.Resource(leases).Namespace(s.e.Namespace)
	l, err := c.Get(ctx, s.e.Name, metav1.GetOptions{})
	if err != nil {
		return
	}
	if holder, _, _ := unstructured.NestedString(l.Object, "spec", "holderIdentity"); holder != s.e.Identity {
		return
	}
	_ = unstructured.SetNestedField(l.Object, "", "spec", "holderIdentity")
	if _, err := c.Update(ctx, l, metav1.UpdateOptions{FieldManager: FieldManager}); err != nil {
		s.e.Log.Info("kubernetes: the lease was not given up; another takes it when it runs out", "error", err)
	}
}
