package pod

import (
	"context"
	"strings"
	"time"
)

const (
	blindDelay  = 2 * time.Second        // that a pod serves on when there is no control plane to ask
	retireRetry = 100 * time.Millisecond // between questions that got no answer
)

// retire serves on until no proxy sends to the pod any more, for at most
// Env.DrainDelay. Without a control plane nobody can be told that the pod ends;
// proxies then find out by themselves, after what they had sent was served.
func (p *Pod) retire(ctx context.Context) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.env.DrainDelay)
	defer cancel()
	p.wg.Go(func() { // ends with ctx
		select {
		case <-p.hurry:
			cancel()
		case <-ctx.Done():
		}
	})
	var behind []string
	for ctx.Err() == nil {
		if p.env.Control == nil {
			sleep(ctx, blindDelay)
			return
		}
		r, err := p.env.Control.Retired(ctx, p.spec.Namespace, p.name)
		switch {
		case err == nil && r.Done:
			return
		case err == nil:
			behind = r.Behind
		case time.Since(began) >= blindDelay:
			return
		default:
			sleep(ctx, retireRetry)
		}
	}
	if !closed(p.hurry) && len(behind) > 0 {
		p.env.Log.Warn("pod ends although proxies may still send to it", "namespace", p.spec.Namespace, "pod", p.name,
			"after", p.env.DrainDelay, "proxies", strings.Join(behind, " "))
	}
}
