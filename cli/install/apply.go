package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"weft.mesh/weft/cli/kube"
)

// Installer changes one cluster.
type Installer struct {
	Cluster *kube.Cluster
	// Progress is told each step, in a few words. Must be set.
	Progress func(line string)
	DryRun   bool // the API server checks everything and stores nothing
	Force    bool // take over fields that others set
	Wait     bool // until gateways, node agents and webhooks are ready
	// Timeout bounds each wait; default 5 minutes. Poll is how often it looks; default 500 ms.
	Timeout, Poll time.Duration
}

func (in *Installer) withDefaults() {
	if in.Timeout == 0 {
		in.Timeout = 5 * time.Minute
	}
	if in.Poll == 0 {
		in.Poll = 500 * time.Millisecond
	}
}

// Install brings a plan into the cluster. What is in the way is found before anything is written.
func (in *Installer) Install(ctx context.Context, p *Plan) error {
	in.withDefaults()
	findings := in.Precheck(ctx, p)
	var errs []error
	for _, f := range findings {
		if f.Severity == SeverityError {
			errs = append(errs, f)
		} else {
			in.Progress("warning: " + f.Error())
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := in.applyCRDs(ctx, p); err != nil {
		return err
	}
	if !in.hasGatewayAPI(ctx) {
		in.withoutGatewayAPI(p)
	}
	before, after := split(p.Objects)
	for _, o := range before {
		if err := in.apply(ctx, o); err != nil {
			return err
		}
	}
	if err := in.waitForControlPlane(ctx, p); err != nil {
		return err
	}
	for _, o := range after {
		if err := in.apply(ctx, o); err != nil {
			return err
		}
	}
	if err := in.prune(ctx, p); err != nil {
		return err
	}
	if in.DryRun || !in.Wait {
		return nil
	}
	return in.waitForRest(ctx, p)
}

// withoutGatewayAPI leaves out what the cluster has no kind for.
func (in *Installer) withoutGatewayAPI(p *Plan) {
	p.Objects = slices.DeleteFunc(p.Objects, func(o *unstructured.Unstructured) bool {
		if o.GetKind() != "GatewayClass" {
			return false
		}
		word := "left out: the cluster has no Gateway API"
		if in.DryRun && p.text("gatewayAPI", "crds") == "auto" {
			word = "would be created"
		}
		in.Progress(nameOf(o) + " " + word)
		return true
	})
}

// split takes the webhooks, which come last, from the rest.
func split(objs []*unstructured.Unstructured) (before, after []*unstructured.Unstructured) {
	for _, o := range objs {
		if k, _, _ := kindOf(o); k.webhook {
			after = append(after, o)
		} else {
			before = append(before, o)
		}
	}
	return before, after
}

func (in *Installer) client(k kind, ns string) dynamic.ResourceInterface {
	if k.namespaced {
		return in.Cluster.Dynamic.Resource(k.gvr).Namespace(ns)
	}
	return in.Cluster.Dynamic.Resource(k.gvr)
}

// apply sets an object's fields on the server's side. It says so only if something changed.
func (in *Installer) apply(ctx context.Context, o *unstructured.Unstructured) error {
	k, _, err := kindOf(o)
	if err != nil {
		return err
	}
	c := in.client(k, o.GetNamespace())
	old, err := c.Get(ctx, o.GetName(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return in.Cluster.Explain("get", nameOf(o), err)
	}
	opts := metav1.ApplyOptions{FieldManager: manager, Force: in.Force}
	if in.DryRun {
		if ns := o.GetNamespace(); ns != "" && !in.exists(ctx, ns) {
			in.Progress(nameOf(o) + " would be created")
			return nil // the API server checks nothing in a namespace that is not there
		}
		opts.DryRun = []string{metav1.DryRunAll}
	}
	now, err := c.Apply(ctx, o.GetName(), o, opts)
	if err != nil {
		return in.Cluster.Explain("apply", nameOf(o), err)
	}
	if word := outcome(old, now, in.DryRun); word != "" {
		in.Progress(nameOf(o) + " " + word)
	}
	return nil
}

func (in *Installer) exists(ctx context.Context, ns string) bool {
	_, err := in.Cluster.Dynamic.Resource(namespaces).Get(ctx, ns, metav1.GetOptions{})
	return err == nil
}

// outcome is what happened to an object; "" is nothing.
func outcome(old, now *unstructured.Unstructured, dry bool) string {
	fresh := old == nil || old.GetUID() == ""
	switch {
	case fresh && dry:
		return "would be created"
	case fresh:
		return "created"
	case equality.Semantic.DeepEqual(content(old), content(now)):
		return ""
	case dry:
		return "would be changed"
	}
	return "changed"
}

// content is an object without what the server keeps of it.
func content(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	o.SetGeneration(0)
	delete(o.Object, "status")
	return o.Object
}

// until asks again and again until done says so. What was last missing is in the error.
func (in *Installer) until(ctx context.Context, what string, done func(context.Context) (missing string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	missing := "no answer yet"
	for {
		now, err := done(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil && now == "":
			return nil
		case err == nil:
			missing = now
		}
		select {
		case <-ctx.Done():
			return &Finding{SeverityError, fmt.Sprintf("%s: not ready after %s: %s", what, in.Timeout, missing), "see weft verify, and kubectl -n " + Namespace + " get events"}
		case <-time.After(in.Poll):
		}
	}
}
