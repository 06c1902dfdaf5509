package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// podsQuiet is how long the runtime's folder must be quiet before it is read:
// short, because endpoints of a pod that ends must move before it does.
const podsQuiet = 5 * time.Millisecond

// filter keeps keys of some kinds (comma-separated), a namespace and a name; "" is any.
func filter(kind, ns, name string) func(model.Key) bool {
	var kinds []string
	if kind != "" {
		kinds = strings.Split(kind, ",")
	}
	return func(k model.Key) bool {
		return (kinds == nil || slices.Contains(kinds, string(k.Kind))) && (ns == "" || k.Namespace == ns) && (name == "" || k.Name == name)
	}
}

// watcher gathers events for one reader, the last for each object, so that its
// queue is bounded by the number of objects.
type watcher struct {
	c      *config
	keep   func(model.Key) bool
	wake   chan struct{}
	order  []model.Key // config's mu
	events map[model.Key]admin.Event
	synced bool // SYNCED was sent
}

// watch begins with everything there is. ok is false when too many watch.
func (c *config) watch(kind, ns, name string) (w *watcher, stop func(), ok bool) {
	w = &watcher{c: c, keep: filter(kind, ns, name), wake: make(chan struct{}, 1), events: map[model.Key]admin.Event{}}
	c.mu.Lock()
	if len(c.watchers) >= maxWatchers {
		c.mu.Unlock()
		return nil, nil, false
	}
	c.watchers[w] = struct{}{}
	c.mu.Unlock()
	// Registered first, listed second: an object that comes in between is
	// told twice, none is missed. The list may be newer than a queued event,
	// never older than what the queue has already told.
	for _, o := range c.merged.Objects() {
		if w.keep(o.Key) {
			c.mu.Lock()
			if _, queued := w.events[o.Key]; !queued {
				w.add(admin.EventPut, &o, c.revision)
			}
			c.mu.Unlock()
		}
	}
	return w, func() {
		c.mu.Lock()
		delete(c.watchers, w)
		c.mu.Unlock()
	}, true
}

// tell queues an event for everyone who watches. mu is held.
func (c *config) tell(t admin.EventType, o *convert.Object) {
	c.revision++
	for w := range c.watchers {
		if w.keep(o.Key) {
			w.add(t, o, c.revision)
		}
	}
}

func (w *watcher) add(t admin.EventType, o *convert.Object, revision uint64) {
	if _, queued := w.events[o.Key]; !queued {
		w.order = append(w.order, o.Key)
	}
	obj := o.Admin(revision)
	w.events[o.Key] = admin.Event{Type: t, Object: &obj}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next waits for events. The first batch ends with SYNCED.
func (w *watcher) next(ctx context.Context) ([]admin.Event, error) {
	if !w.synced {
		if err := w.c.wait(ctx); err != nil {
			return nil, err
		}
		w.synced = true
		return append(w.take(), admin.Event{Type: admin.EventSynced}), nil
	}
	for {
		if evs := w.take(); len(evs) > 0 {
			return evs, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.wake:
		}
	}
}

func (w *watcher) take() []admin.Event {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	out := make([]admin.Event, 0, len(w.order))
	for _, k := range w.order {
		out = append(out, w.events[k])
	}
	w.order = nil
	clear(w.events)
	return out
}
