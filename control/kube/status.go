package kube

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/kube/kubeclient"
	kubesource "weft.mesh/weft/control/source/kube"
	"weft.mesh/weft/model"
)

// statusEvery is how often the status of objects is looked at: a change waits
// at most so long, and many changes of one object become one write.
const statusEvery = 2 * time.Second

// Merge makes an object's status of the one it has, which it must not change.
// What others wrote into it stays. Conditions that did not change keep their time.
type Merge func(have map[string]any) map[string]any

// StatusSettings are those of a Status.
type StatusSettings struct {
	Client *kubeclient.Client
	Source *kubesource.Source
	World  func() string // version of the current World
	// Proxies are those that are connected to this replica. They are asked for only while there is something that they may not have yet.
	Proxies func() []admin.ProxyStatus
	// Wanted is the status of further objects, with a text that differs where it
	// does: those of the Gateway API. nil: none.
	Wanted func() map[model.Key]Wanted
	// Mine tells whether an object, which has this label istio.io/rev, is this revision's to write; nil: all are.
	Mine func(namespace, revision string) bool
	Log  *slog.Logger

	every time.Duration // tests
}

// Wanted is the status that an object should have.
type Wanted struct {
	Text  string // equal texts are equal statuses; a status is not read again for one that was written
	Merge Merge
}

// Status writes what became of objects into their status: whether they were
// accepted, with what was said about them, and whether the proxies of this
// replica have them. Leader only.
type Status struct {
	set  StatusSettings
	wake chan struct{}

	mu     sync.Mutex // protects Run from running twice
	rounds map[model.Key]*progress
	wrote  map[model.Key]string // text of what the object has now
}

// progress is how far one generation of an object has come.
type progress struct {
	generation int64
	target     uint64 // sequence of a World that surely holds it; 0: not known yet
	done       bool   // all proxies had it once
}

// NewStatus makes a writer.
func NewStatus(set StatusSettings) *Status {
	if set.every == 0 {
		set.every = statusEvery
	}
	return &Status{set: set, wake: make(chan struct{}, 1)}
}

// Wake tells that something has changed; the status is looked at soon.
func (s *Status) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends.
func (s *Status) Run(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rounds, s.wrote = map[model.Key]*progress{}, map[model.Key]string{}
	limit := rate.NewLimiter(writeRate, writeBurst)
	tick := time.NewTicker(s.set.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.round(ctx, limit)
	}
}

// round looks at everything once, and writes what differs.
func (s *Status) round(ctx context.Context, limit *rate.Limiter) {
	want := s.istio()
	if s.set.Wanted != nil {
		maps.Copy(want, s.set.Wanted())
	}
	maps.DeleteFunc(want, func(k model.Key, _ Wanted) bool { return !s.mine(k) })
	for k := range s.wrote {
		if _, ok := want[k]; !ok {
			delete(s.wrote, k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(want), compareKeys) {
		text := s.uid(k) + want[k].Text // an object that was made again has no status yet
		if s.wrote[k] == text {
			continue
		}
		if limit.Wait(ctx) != nil {
			return
		}
		if s.write(ctx, k, want[k]) {
			s.wrote[k] = text
		}
	}
}

// mine tells whether the object is this revision's to write. What another writes meanwhile is compared anew when it is.
func (s *Status) mine(k model.Key) bool {
	v, _ := s.set.Source.Version(k)
	return s.set.Mine == nil || s.set.Mine(k.Namespace, v.Revision)
}

// uid is that of the object as it was read last.
func (s *Status) uid(k model.Key) string {
	v, _ := s.set.Source.Version(k)
	return v.UID
}

func compareKeys(a, b model.Key) int { return strings.Compare(a.String(), b.String()) }

// write brings one object's status up to date; false: it is tried again in the next round.
func (s *Status) write(ctx context.Context, k model.Key, want Wanted) bool {
	c, ok := s.resource(k)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	u, err := c.Get(ctx, k.Name, metav1.GetOptions{})
	if err == nil {
		have, _ := u.Object["status"].(map[string]any)
		next := plain(want.Merge(have))
		if sameJSON(have, next) {
			return true
		}
		u.Object["status"] = next
		_, err = c.UpdateStatus(ctx, u, metav1.UpdateOptions{FieldManager: FieldManager})
	}
	switch {
	case err == nil, apierrors.IsNotFound(err): // written; or gone, or of a definition without status
		return true
	case !apierrors.IsConflict(err) && ctx.Err() == nil:
		s.set.Log.Warn("kubernetes: a status cannot be written", "object", k.String(), "error", err)
	}
	return false
}

type resourceClient interface {
	Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error)
	UpdateStatus(context.Context, *unstructured.Unstructured, metav1.UpdateOptions) (*unstructured.Unstructured, error)
}

// resource is where an object of a kind is written, in the version that it was read.
func (s *Status) resource(k model.Key) (resourceClient, bool) {
	plural, versions, ok := kubesource.Resource(k.Kind)
	if !ok {
		return nil, false
	}
	version := versions[0]
	if v, ok := s.set.Source.Version(k); ok && v.APIVersion != "" {
		version = v.APIVersion
	}
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		return nil, false
	}
	r := s.set.Client.Dynamic.Resource(gv.WithResource(plural))
	if k.Namespace == "" {
		return r, true
	}
	return r.Namespace(k.Namespace), true
}

// plain makes a tree of what JSON has, for the dynamic client.
func plain(v map[string]any) map[string]any {
	b, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var out map[string]any
	if json.Unmarshal(b, &out) != nil {
		return v
	}
	return out
}

func sameJSON(a, b map[string]any) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
