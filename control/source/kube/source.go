// Package kube is the source that an API server is: it watches the kinds that
// the mesh is made of and delivers them as objects of package convert, like any other source.
//
// Built-in kinds come as typed objects of which only what is used is kept:
// nothing here holds a pod or a slice but as its model value, so that ten
// thousand of them cost a few megabytes. Custom resources take the way of
// a file's text through convert.DecodeStored: what is refused is refused with
// the words of `weft apply`, and what the object was before stays in force.
//
// A custom resource that is not installed is waited for. While the API server
// is away or refuses, what was delivered stays valid, one line in the log says
// so, and everything is compared anew afterwards. Only namespaces that the
// discovery selectors take are delivered, and what is in them.
package kube

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/model"
)

// Settings of a Source. Only Client must be set.
type Settings struct {
	Client *kubeclient.Client
	// Selectors choose namespaces by their labels; one that matches is enough. None: all namespaces.
	Selectors []labels.Selector
	Log       *slog.Logger // default: discard
	// OnProblems is called after the answer of Problems has changed. It must not block.
	OnProblems func()

	retry time.Duration // longest wait between attempts, default kubeclient.MaxBackoff
}

// Source is an API server. Safe for concurrent use, except that only one Run may be active.
type Source struct {
	set Settings

	mu       sync.Mutex // protects the following
	problems map[model.Key][]admin.Diagnostic
	versions map[model.Key]Version
}

// Version is what an object's status has to say it is about.
type Version struct {
	Generation int64
	APIVersion string
	UID        string // another one is another object, though it has the name of one that is gone
	Revision   string // its label istio.io/rev
}

var _ source.Source = (*Source)(nil)

// New makes a source; it connects when it runs.
func New(set Settings) *Source {
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	if set.OnProblems == nil {
		set.OnProblems = func() {}
	}
	if set.retry == 0 {
		set.retry = kubeclient.MaxBackoff
	}
	return &Source{set: set, problems: map[model.Key][]admin.Diagnostic{}, versions: map[model.Key]Version{}}
}

// Problems is what is wrong with objects that are in the API server, by object:
// errors are of objects that were refused, warnings of objects that are in force.
func (s *Source) Problems() map[model.Key][]admin.Diagnostic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.problems)
}

// Versions are the custom resources that are there, refused or not, with what was last seen of each.
func (s *Source) Versions() map[model.Key]Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.versions)
}

// Version is what was last seen of one custom resource.
func (s *Source) Version(k model.Key) (Version, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.versions[k]
	return v, ok
}

// note keeps what is wrong with an object; nil: nothing.
func (s *Source) note(k model.Key, ds []admin.Diagnostic) {
	s.mu.Lock()
	old, had := s.problems[k]
	same := had == (len(ds) > 0) && slices.Equal(old, ds)
	if len(ds) > 0 {
		s.problems[k] = ds
	} else {
		delete(s.problems, k)
	}
	s.mu.Unlock()
	if same {
		return
	}
	for _, d := range ds {
		if d.Severity == admin.SeverityError {
			s.set.Log.Error("kubernetes: an object is refused, what it was before serves", "object", d.Object, "field", d.Field, "value", d.Value, "reason", d.Message, "hint", d.Hint)
		}
	}
	s.set.OnProblems()
}

func (s *Source) seen(k model.Key, v *Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v == nil {
		delete(s.versions, k)
	} else {
		s.versions[k] = *v
	}
}

// Run implements [source.Source].
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	s.mu.Lock()
	clear(s.problems)
	clear(s.versions)
	s.mu.Unlock()
	// client-go logs each failed attempt; ours is one line for each outage.
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logr.Discard()))
	defer cancel()
	r := &run{s: s, ctx: ctx, sink: sink, pending: map[string]bool{}, watched: map[model.Kind]*watched{}, trouble: newTrouble(s.set.Log, s.set.Client.Host()), named: make(chan struct{})}
	defer r.wg.Wait()
	if err := r.start(); err != nil {
		return err
	}
	<-ctx.Done()
	r.mu.Lock() // no call of the sink is under way, and none begins
	r.ended = true
	r.mu.Unlock()
	return nil
}

// run is one Run of a source.
type run struct {
	s       *Source
	ctx     context.Context
	trouble *trouble
	wg      sync.WaitGroup
	named   chan struct{} // closed when the namespaces are known

	mu      sync.Mutex // protects the following, and serializes calls of the sink
	sink    source.Sink
	ended   bool
	told    bool
	pending map[string]bool // what has not delivered all it holds
	watched map[model.Kind]*watched
	chosen  map[string]bool // namespaces that the selectors take; nil: all
	// chosenChanged: since everything was last read.
	chosenChanged bool
}

// start begins with the namespaces: with selectors, what is delivered of others depends on them.
func (r *run) start() error {
	r.mu.Lock()
	r.pending["crds"] = true
	if len(r.s.set.Selectors) > 0 {
		r.chosen = map[string]bool{}
	} else {
		close(r.named) // nothing depends on them
	}
	r.mu.Unlock()
	if err := r.watch(builtin[0], builtin[0].versions[0]); err != nil {
		return err
	}
	r.wg.Go(func() {
		select {
		case <-r.ctx.Done():
			return
		case <-r.named:
		}
		for _, k := range builtin[1:] {
			if err := r.watch(k, k.versions[0]); err != nil {
				r.s.set.Log.Error("kubernetes: a kind cannot be watched", "kind", k.kind, "error", err)
				return // and never synced: half a mesh is worse than none
			}
		}
		r.followCRDs()
	})
	return nil
}

// watch follows one kind until the run ends or the kind is gone.
func (r *run) watch(k *kind, version string) error {
	lw, err := r.listWatch(k, version)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	w := &watched{r: r, kind: k, version: version, held: map[model.Key]fingerprint{}, stop: cancel, again: make(chan struct{}, 1), lw: lw}
	r.mu.Lock()
	r.watched[k.kind] = w
	r.pending[string(k.kind)] = true
	r.mu.Unlock()
	r.wg.Go(func() { w.run(ctx) })
	return nil
}

// synced notes that a part has delivered all it holds; the last one tells the sink. mu is held.
func (r *run) synced(what string) {
	delete(r.pending, what)
	if what == string(model.KindNamespace) {
		select {
		case <-r.named:
		default:
			close(r.named)
		}
	}
	if len(r.pending) == 0 && !r.told && !r.ended {
		r.told = true
		r.sink.Synced()
	}
}
