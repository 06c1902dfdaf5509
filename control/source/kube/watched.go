package kube

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"reflect"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/model"
)

// watched is one kind that is followed. It is the store of client-go's
// reflector, and keeps no object: only what tells a changed one.
type watched struct {
	r       *run
	kind    *kind
	version string
	lw      *cache.ListWatch
	stop    context.CancelFunc
	again   chan struct{} // read everything anew
	done    bool          // the kind is gone; run's mu

	held map[model.Key]fingerprint // what was delivered; run's mu
}

// fingerprint tells whether an object differs from what was delivered: the
// model value itself, which the World has anyhow, or a hash of the text.
type fingerprint struct {
	value any
	text  uint64
}

var seed = maphash.MakeSeed()

func fingerprintOf(o *convert.Object) fingerprint {
	if len(o.Raw) == 0 {
		return fingerprint{value: o.Value}
	}
	return fingerprint{text: maphash.Bytes(seed, o.Raw)}
}

func (f fingerprint) equal(g fingerprint) bool {
	return f.text == g.text && reflect.DeepEqual(f.value, g.value)
}

// run follows the kind until ctx ends; a call of restart makes it list again.
func (w *watched) run(ctx context.Context) {
	for ctx.Err() == nil {
		part, cancel := context.WithCancel(ctx)
		quiet := logr.Discard()
		reflector := cache.NewReflectorWithOptions(w.lw, nil, w, cache.ReflectorOptions{Name: "weft", Logger: &quiet, TypeDescription: string(w.kind.kind), Backoff: kubeclient.Backoff(w.r.s.set.retry)})
		done := make(chan struct{})
		go func() {
			defer close(done)
			reflector.RunWithContext(part)
		}()
		select {
		case <-ctx.Done():
		case <-w.again:
		}
		cancel()
		<-done
	}
}

func (w *watched) restart() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// Add implements cache.ReflectorStore.
func (w *watched) Add(o any) error { return w.change(o) }

// Update implements cache.ReflectorStore.
func (w *watched) Update(o any) error { return w.change(o) }

// Resync implements cache.ReflectorStore.
func (w *watched) Resync() error { return nil }

func (w *watched) change(o any) error {
	e, ok := o.(*entry)
	if !ok {
		return fmt.Errorf("source kubernetes: %s: unexpected %T", w.kind.kind, o)
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.dead() {
		return nil
	}
	put, gone := w.take(e)
	w.deliver(put, gone)
	w.r.namespaceChanged(w.kind)
	return nil
}

// dead tells that nothing may be delivered any more. mu is held.
func (w *watched) dead() bool { return w.r.ended || w.done }

// Delete implements cache.ReflectorStore.
func (w *watched) Delete(o any) error {
	e, ok := o.(*entry)
	if !ok {
		return fmt.Errorf("source kubernetes: %s: unexpected %T", w.kind.kind, o)
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if !w.dead() {
		w.deliver(nil, w.forget(w.key(e)))
		w.r.namespaceChanged(w.kind)
	}
	return nil
}

// Replace implements cache.ReflectorStore: the list is all there is.
func (w *watched) Replace(list []any, _ string) error {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.dead() {
		return nil
	}
	var puts []convert.Object
	var gone []model.Key
	there := make(map[model.Key]bool, len(list))
	for _, o := range list {
		e, ok := o.(*entry)
		if !ok {
			return fmt.Errorf("source kubernetes: %s: unexpected %T", w.kind.kind, o)
		}
		there[w.key(e)] = true
		put, del := w.take(e)
		puts, gone = append(puts, put...), append(gone, del...)
	}
	for k := range w.all() {
		if !there[k] {
			gone = append(gone, w.forget(k)...)
		}
	}
	w.deliver(puts, gone)
	w.r.namespaceChanged(w.kind)
	w.r.synced(string(w.kind.kind))
	return nil
}

func (w *watched) key(e *entry) model.Key {
	return model.Key{Kind: w.kind.kind, Namespace: e.Namespace, Name: e.Name}
}

// all are the keys of the kind that anything is known of. mu is held.
func (w *watched) all() map[model.Key]bool {
	out := make(map[model.Key]bool, len(w.held))
	for k := range w.held {
		out[k] = true
	}
	w.r.s.mu.Lock()
	defer w.r.s.mu.Unlock()
	for k := range w.r.s.versions {
		if k.Kind == w.kind.kind {
			out[k] = true
		}
	}
	return out
}

// take judges an object that is there: what to deliver of it. mu is held.
func (w *watched) take(e *entry) (put []convert.Object, gone []model.Key) {
	k := w.key(e)
	if e.dropped || !w.r.inScope(w.kind, e) {
		return nil, w.forget(k)
	}
	if w.kind.typed == nil {
		w.r.s.seen(k, &Version{Generation: e.Generation, APIVersion: e.object.APIVersion, UID: string(e.UID), Revision: e.revision})
		w.r.s.note(k, e.diags)
	}
	if e.refused {
		return nil, nil
	}
	f := fingerprintOf(&e.object)
	if old, ok := w.held[k]; ok && old.equal(f) {
		return nil, nil
	}
	w.held[k] = f
	return []convert.Object{e.object}, nil
}

// forget drops what is known of an object, and returns its key if it was delivered. mu is held.
func (w *watched) forget(k model.Key) []model.Key {
	if w.kind.typed == nil {
		w.r.s.note(k, nil)
		w.r.s.seen(k, nil)
	}
	if _, ok := w.held[k]; !ok {
		return nil
	}
	delete(w.held, k)
	return []model.Key{k}
}

// deliver calls the sink. mu is held.
func (w *watched) deliver(put []convert.Object, gone []model.Key) {
	if len(gone) > 0 {
		w.r.sink.Delete(gone...)
	}
	if len(put) > 0 {
		w.r.sink.Put(put...)
	}
}

// end forgets a kind that is no longer installed.
func (w *watched) end() {
	w.stop()
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.dead() {
		return
	}
	var gone []model.Key
	for k := range w.all() {
		gone = append(gone, w.forget(k)...)
	}
	w.done = true
	w.deliver(nil, gone)
	delete(w.r.watched, w.kind.kind)
	w.r.synced(string(w.kind.kind))
}

// inScope tells whether the selectors take an object's namespace. mu is held.
func (r *run) inScope(k *kind, e *entry) bool {
	if r.chosen == nil {
		return true
	}
	if k.kind == model.KindNamespace {
		in := r.selects(e.object.Meta.Labels)
		if in != r.chosen[e.Name] {
			r.chosenChanged = true
		}
		if in {
			r.chosen[e.Name] = true
		} else {
			delete(r.chosen, e.Name)
		}
		return in
	}
	return e.Namespace == "" || r.chosen[e.Namespace]
}

func (r *run) selects(labels map[string]string) bool {
	for _, s := range r.s.set.Selectors {
		if s.Matches(labelSet(labels)) {
			return true
		}
	}
	return false
}

// namespaceChanged reads everything anew if the selectors take other namespaces
// now. That is rare, and what is outside is not kept. mu is held.
func (r *run) namespaceChanged(k *kind) {
	if k.kind != model.KindNamespace || !r.chosenChanged {
		return
	}
	r.chosenChanged = false
	for _, w := range r.watched {
		if w.kind.kind != model.KindNamespace {
			w.restart()
		}
	}
}

// labelSet is labels as a selector reads them.
type labelSet map[string]string

func (l labelSet) Has(k string) bool              { _, ok := l[k]; return ok }
func (l labelSet) Get(k string) string            { return l[k] }
func (l labelSet) Lookup(k string) (string, bool) { v, ok := l[k]; return v, ok }

var errNoList = errors.New("not a list")

func listMeta(l runtime.Object) (metav1.ListInterface, error) {
	m, err := meta.ListAccessor(l)
	if err != nil {
		return nil, fmt.Errorf("source kubernetes: %T: %w", l, errNoList)
	}
	return m, nil
}

func eachItem(l runtime.Object, f func(runtime.Object) error) error { return meta.EachListItem(l, f) }
