package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft.mesh/weft/node/cni"
)

// exitNotCaptured is how the check in a pod ends that finds no redirection: Istio's code, and that of `weft-node validate`.
const exitNotCaptured = 126

// again is when a pod that is still broken is tried again.
const again = 5 * time.Second

// Mode is what is done to a pod whose traffic is not redirected.
type Mode string

// Modes, as Istio's values cni.repair.repairPods, deletePods and labelPods.
const (
	ModeRepair Mode = "repair" // program the rules into the running pod
	ModeDelete Mode = "delete" // its controller makes another
	ModeLabel  Mode = "label"  // for people, or a controller of theirs
	ModeNone   Mode = ""
)

// Surgeon does to a pod what the mode says. Program works inside the pod's namespaces on this node.
type Surgeon interface {
	Program(ctx context.Context, p *corev1.Pod, a cni.Answer) error
	Delete(ctx context.Context, p *corev1.Pod) error
	Label(ctx context.Context, p *corev1.Pod) error
}

// Repair mends the pods of its node that started before the plugin was there.
type Repair struct {
	Mode    Mode
	Surgeon Surgeon
	Exclude []string // namespaces that the plugin leaves alone too
	Metrics *Metrics
	Log     *slog.Logger

	mu   sync.Mutex // protects all
	all  map[types.UID]*corev1.Pod
	wake chan struct{} // 1 slot
}

// NewRepair makes one that knows no pods yet.
func NewRepair(mode Mode, s Surgeon, exclude []string, m *Metrics, log *slog.Logger) *Repair {
	return &Repair{Mode: mode, Surgeon: s, Exclude: exclude, Metrics: m, Log: log, all: map[types.UID]*corev1.Pod{}, wake: make(chan struct{}, 1)}
}

// Run mends until ctx ends. It fails for nobody: a pod that cannot be mended is tried again.
func (r *Repair) Run(ctx context.Context) {
	done := map[types.UID]int32{} // by the restarts of the check that was mended after
	for {
		pods, next := r.snapshot(), (<-chan time.Time)(nil)
		maps.DeleteFunc(done, func(uid types.UID, _ int32) bool { return pods[uid] == nil })
		for uid, p := range pods {
			restarts, broken := r.broken(p)
			if at, was := done[uid]; !broken || was && (at == restarts || r.Mode == ModeLabel) {
				continue
			}
			if err := r.mend(ctx, p); err != nil {
				next = time.After(again)
				continue
			}
			done[uid] = restarts
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-next:
		}
	}
}

// broken tells whether the pod's check has found no redirection and nothing has changed since; restarts counts its runs.
func (r *Repair) broken(p *corev1.Pod) (restarts int32, broken bool) {
	if p.DeletionTimestamp != nil || slices.Contains(r.Exclude, p.Namespace) || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed && p.Spec.RestartPolicy != corev1.RestartPolicyNever {
		return 0, false
	}
	if !Decide(p).Capture {
		return 0, false
	}
	for _, s := range p.Status.InitContainerStatuses {
		if s.Name != containerValidation || s.State.Running != nil {
			continue
		}
		end := s.State.Terminated
		if end == nil {
			end = s.LastTerminationState.Terminated
		}
		return s.RestartCount, end != nil && end.ExitCode == exitNotCaptured
	}
	return 0, false
}

// mend does what the mode says. A pod that will not run again is deleted or labelled, but not programmed.
func (r *Repair) mend(ctx context.Context, p *corev1.Pod) error {
	name := p.Namespace + "/" + p.Name
	var err error
	switch r.Mode {
	case ModeRepair:
		if p.Status.Phase == corev1.PodFailed {
			r.Metrics.repaired.WithLabelValues(string(r.Mode), "skip").Inc()
			r.Log.Warn("a pod that started before the plugin has ended and cannot be repaired; delete it", "pod", name)
			return nil
		}
		err = r.Surgeon.Program(ctx, p, Decide(p))
	case ModeDelete:
		err = r.Surgeon.Delete(ctx, p)
	case ModeLabel:
		err = r.Surgeon.Label(ctx, p)
	default:
		return nil
	}
	if err != nil {
		r.Metrics.repaired.WithLabelValues(string(r.Mode), "fail").Inc()
		r.Log.Error("a pod that started before the plugin cannot be mended; trying again", "pod", name, "how", r.Mode, "error", err)
		return err
	}
	r.Metrics.repaired.WithLabelValues(string(r.Mode), "success").Inc()
	r.Log.Info("mended a pod that started before the plugin", "pod", name, "how", r.Mode)
	return nil
}

func (r *Repair) snapshot() map[types.UID]*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.all)
}

func (r *Repair) edit(o any, f func(*corev1.Pod)) error {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("node agent: unexpected %T", o)
	}
	r.mu.Lock()
	f(p)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

// keep is whether a pod can ever be broken; the others are not remembered.
func keep(p *corev1.Pod) bool { return validated(p) }

// Add implements cache.ReflectorStore.
func (r *Repair) Add(o any) error {
	return r.edit(o, func(p *corev1.Pod) {
		if keep(p) {
			r.all[p.UID] = p
		}
	})
}

// Update implements cache.ReflectorStore.
func (r *Repair) Update(o any) error { return r.Add(o) }

// Delete implements cache.ReflectorStore.
func (r *Repair) Delete(o any) error {
	return r.edit(o, func(p *corev1.Pod) { delete(r.all, p.UID) })
}

// Replace implements cache.ReflectorStore.
func (r *Repair) Replace(list []any, _ string) error {
	r.mu.Lock()
	clear(r.all)
	r.mu.Unlock()
	for _, o := range list {
		if err := r.Add(o); err != nil {
			return err
		}
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (r *Repair) Resync() error { return nil }
