package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"weft.mesh/weft/node/cni"
)

// Attempts to read a pod: the API server may be busy, and a replica of it a moment behind.
const (
	attempts = 4
	pause    = 500 * time.Millisecond
)

// Pods reads pods.
type Pods interface {
	Get(ctx context.Context, namespace, name string) (*corev1.Pod, error)
}

// Judge answers the plugin.
type Judge struct {
	Pods    Pods
	Metrics *Metrics
	Log     *slog.Logger
}

// Answer is what is to become of a pod. It never takes longer than a few seconds more than the API server.
func (j *Judge) Answer(ctx context.Context, q cni.Pod) cni.Answer {
	p, err := j.find(ctx, q)
	if err != nil {
		j.Metrics.requests.WithLabelValues("error").Inc()
		j.Log.Warn("a pod's network waits: it cannot be judged", "pod", q.Namespace+"/"+q.Name, "error", err)
		return cni.Answer{Error: err.Error()}
	}
	a := Decide(p)
	result := "skipped"
	if a.Capture {
		result = "captured"
	}
	j.Metrics.requests.WithLabelValues(result).Inc()
	j.Log.Debug("judged", "pod", q.Namespace+"/"+q.Name, "capture", a.Capture, "why", a.Why)
	return a
}

func (j *Judge) find(ctx context.Context, q cni.Pod) (p *corev1.Pod, err error) {
	for i := range attempts {
		if i > 0 {
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(pause):
			}
		}
		p, err = j.Pods.Get(ctx, q.Namespace, q.Name)
		switch {
		case err == nil && same(p, q.UID):
			return p, nil
		case err == nil:
			err = fmt.Errorf("pod %s/%s: the API server has one with UID %s, the runtime means %s", q.Namespace, q.Name, p.UID, q.UID)
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			return nil, fmt.Errorf("%w (is the ClusterRole weft-cni bound to the agent's ServiceAccount?)", err)
		}
	}
	return nil, err
}
