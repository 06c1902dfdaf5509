package kube

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/kube/kubeclient"
)

// Labels by which objects and namespaces choose a revision, Istio's.
const (
	labelRevision  = "istio.io/rev"
	labelTag       = "istio.io/tag"
	labelInjection = "istio-injection"
	defaultName    = "default" // the revision without a suffix, and the tag that stands for istio-injection=enabled
)

// Revisions tells which of the revisions that are installed side by side writes
// what becomes of an object: its status, and what runs for a Gateway. Without that
// each leader would undo what another wrote, for as long as both run.
//
// An object belongs to the revision that its label istio.io/rev names, else to
// that of its namespace; the label may name a tag. One that names none of ours, or
// nothing, belongs to the revision that the tag default stands for, else to the revision default,
// else to the first by name. So every object has exactly one, and it has another as soon as its revision is
// uninstalled. What is installed is read off the webhook configurations of package deploy's chart.
type Revisions struct {
	Client *kubeclient.Client
	Own    string // the name of this revision; "" is default
	Log    *slog.Logger

	once          sync.Once
	hooks, spaces *objects
	moved         chan struct{} // 1 slot
}

func (r *Revisions) init() {
	r.once.Do(func() {
		if r.Own == "" {
			r.Own = defaultName
		}
		r.hooks, r.spaces = newObjects(slimHook), newObjects(slimSpace)
		r.moved = make(chan struct{}, 1)
	})
}

// Run follows what is installed until ctx ends.
func (r *Revisions) Run(ctx context.Context) {
	r.init()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { follow(ctx, r.Client.Dynamic.Resource(mutating), "", r.hooks, r.Log, "revisions") })
	wg.Go(func() {
		follow(ctx, r.Client.Dynamic.Resource(namespaces), "", r.spaces, r.Log, "namespaces of revisions")
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hooks.wake:
		case <-r.spaces.wake:
		}
		select {
		case r.moved <- struct{}{}:
		default:
		}
	}
}

// Moved is signalled when an answer of Mine may be another. It has one reader.
func (r *Revisions) Moved() <-chan struct{} {
	r.init()
	return r.moved
}

// Mine tells whether an object is this revision's to write. label is the
// object's own label istio.io/rev; namespace is "" for objects without one.
// Nothing is anybody's before Run has read what there is.
func (r *Revisions) Mine(namespace, label string) bool {
	r.init()
	hooks, read := r.hooks.list()
	if !read || !r.spaces.ready() {
		return false
	}
	tags, installed := map[string]string{}, map[string]bool{}
	for _, h := range hooks {
		switch rev, tag := h.GetLabels()[labelRevision], h.GetLabels()[labelTag]; {
		case rev == "":
		case tag != "":
			tags[tag] = rev
		default:
			installed[rev] = true
		}
	}
	if label == "" && namespace != "" {
		label = r.ofNamespace(namespace)
	}
	return owner(label, tags, installed, r.Own) == r.Own
}

// ofNamespace is what a namespace's labels say; "" nothing.
func (r *Revisions) ofNamespace(name string) string {
	u, ok := r.spaces.get("/" + name)
	if !ok || u.GetLabels()[labelInjection] != "" {
		return "" // istio-injection counts more, as for pods
	}
	return u.GetLabels()[labelRevision]
}

// owner is the revision that label stands for.
func owner(label string, tags map[string]string, installed map[string]bool, own string) string {
	for _, name := range []string{label, defaultName} {
		if rev := tags[name]; name != "" && installed[rev] {
			return rev
		}
		if installed[name] {
			return name
		}
	}
	if len(installed) == 0 {
		return own // nobody else is there: outside of a cluster, or before the first webhooks are made
	}
	return slices.Sorted(maps.Keys(installed))[0]
}

// slimHook keeps the labels of what the chart made.
func slimHook(u *unstructured.Unstructured) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{}}
	out.SetName(u.GetName())
	if l := u.GetLabels(); l["app.kubernetes.io/name"] == "weft" {
		out.SetLabels(map[string]string{labelRevision: l[labelRevision], labelTag: l[labelTag]})
	}
	return out
}

// slimSpace keeps the labels that choose a revision.
func slimSpace(u *unstructured.Unstructured) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{}}
	out.SetName(u.GetName())
	if l := u.GetLabels(); l[labelRevision] != "" || l[labelInjection] != "" {
		out.SetLabels(map[string]string{labelRevision: l[labelRevision], labelInjection: l[labelInjection]})
	}
	return out
}
