package cli

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/admission"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/inject"
	"weft.mesh/weft/control/kube"
)

// portXDS is the control plane's port for proxies.
const portXDS = "15012"

// webhooks are a replica's answers to the API server: what pods are injected with follows the ConfigMap.
type webhooks struct {
	r       *replica
	values  kube.MeshConfig // the same ConfigMap, another key
	handler *admission.Handler
	conf    atomic.Pointer[inject.Config]

	mu                   sync.Mutex // protects the following
	valuesText, meshText string
}

// makeWebhooks reads the values and makes the handler.
func (r *replica) makeWebhooks(ctx context.Context) error {
	w := &webhooks{r: r, values: r.mesh, meshText: r.text}
	w.values.Key = "values"
	err := r.patiently(ctx, func(ctx context.Context) (err error) { w.valuesText, err = w.values.Load(ctx); return err })
	if err != nil {
		return err
	}
	if err := w.use(w.valuesText, w.meshText); err != nil {
		return fmt.Errorf("configmap %s/%s: %w", r.o.namespace, r.mesh.Name, err)
	}
	w.handler = admission.New(admission.Settings{
		Inject: w.conf.Load, Log: r.log,
		Check: func(ctx context.Context, changed []convert.Object) ([]admin.Diagnostic, error) {
			return r.server.Validate(ctx, changed)
		},
	})
	r.webhooks, r.set.Webhooks = w, w.handler
	return nil
}

// use makes a configuration of both texts; an error leaves the one before.
func (w *webhooks) use(values, mesh string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.make(values, mesh)
}

// make is use for who holds mu.
func (w *webhooks) make(values, mesh string) error {
	c, _, err := inject.ParseConfig(values, mesh)
	if err != nil {
		return err
	}
	c.Domain = w.r.base.Domain
	c.DiscoveryAddress = w.r.o.name("weft") + "." + w.r.o.namespace + ".svc:" + portXDS
	if c.Revision == "" {
		c.Revision = w.r.o.revision
	}
	w.valuesText, w.meshText = values, mesh
	w.conf.Store(c)
	return nil
}

// revalue takes other values, remesh another MeshConfig. Both come at once when an
// upgrade changes both keys of the ConfigMap: neither may bring back the other's old text.
func (w *webhooks) revalue(text string) error {
	w.mu.Lock()
	err := w.make(text, w.meshText)
	w.mu.Unlock()
	if err != nil {
		return err
	}
	w.r.log.Info("injection: values changed", "configmap", w.r.o.namespace+"/"+w.r.mesh.Name)
	return nil
}

func (w *webhooks) remesh(text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.make(w.valuesText, text)
}

// follow takes changes of the values until ctx ends. first are those at the start.
func (w *webhooks) follow(ctx context.Context, first string) { w.values.Follow(ctx, first, w.revalue) }
