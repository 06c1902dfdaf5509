// Package merge makes one source of several.
//
// Sources are given in order of precedence: an object that two of them have is
// taken from the first, and the other is reported as shadowed; when the first
// gives it up, the other comes into force. A source is started when those before
// it have synced, so that it can be judged against what they hold. The merged
// view can be read at any time, except from within the sink's calls.
// One source's failure ends the merged one.
package merge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/model"
)

// Named is a source with a name for messages.
type Named struct {
	Name   string
	Source source.Source
}

// Merge is the merged source. Safe for concurrent use, except that only one Run may be active.
type Merge struct {
	sources []Named

	mu      sync.Mutex // protects the following, and serializes calls of the sink
	sink    source.Sink
	objects []map[model.Key]convert.Object // by source
	synced  []bool
	told    bool
}

// New makes a merged source; the first source wins.
func New(sources ...Named) *Merge {
	return &Merge{sources: sources, objects: newMaps(len(sources)), synced: make([]bool, len(sources))}
}

func newMaps(n int) []map[model.Key]convert.Object {
	out := make([]map[model.Key]convert.Object, n)
	for i := range out {
		out[i] = map[model.Key]convert.Object{}
	}
	return out
}

// Run implements source.Source.
func (m *Merge) Run(ctx context.Context, sink source.Sink) error {
	m.mu.Lock()
	m.sink, m.objects, m.synced, m.told = sink, newMaps(len(m.sources)), make([]bool, len(m.sources)), false
	if len(m.sources) == 0 {
		sink.Synced()
	}
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(m.sources))
	var wg sync.WaitGroup
	before := make(chan struct{})
	close(before)
	for i, s := range m.sources {
		start, synced := before, make(chan struct{})
		before = synced
		wg.Go(func() {
			select {
			case <-start:
			case <-ctx.Done():
				return
			}
			if err := s.Source.Run(ctx, &part{m, i, sync.OnceFunc(func() { close(synced) })}); err != nil {
				errs[i] = fmt.Errorf("source %s: %w", s.Name, err)
			} else if ctx.Err() == nil {
				errs[i] = fmt.Errorf("source %s: ended by itself", s.Name)
			}
			cancel()
		})
	}
	if len(m.sources) == 0 {
		<-ctx.Done()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// part is the sink of one source.
type part struct {
	m      *Merge
	i      int
	synced func()
}

// Put implements source.Sink.
func (p *part) Put(objs ...convert.Object) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	var puts []convert.Object
	for _, o := range objs {
		p.m.objects[p.i][o.Key] = o
		if p.m.owner(o.Key) == p.i {
			puts = append(puts, o)
		}
	}
	if len(puts) > 0 {
		p.m.sink.Put(puts...)
	}
}

// Delete implements source.Sink.
func (p *part) Delete(keys ...model.Key) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	var puts []convert.Object
	var deletes []model.Key
	for _, k := range keys {
		was := p.m.owner(k)
		delete(p.m.objects[p.i], k)
		if was != p.i {
			continue
		}
		if now := p.m.owner(k); now >= 0 {
			puts = append(puts, p.m.objects[now][k])
		} else {
			deletes = append(deletes, k)
		}
	}
	if len(puts) > 0 {
		p.m.sink.Put(puts...)
	}
	if len(deletes) > 0 {
		p.m.sink.Delete(deletes...)
	}
}

// Synced implements source.Sink.
func (p *part) Synced() {
	defer p.synced()
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.synced[p.i] = true
	if !p.m.told && !slices.Contains(p.m.synced, false) {
		p.m.told = true
		p.m.sink.Synced()
	}
}

// owner is the source whose object is in force, -1 if none has it. mu is held.
func (m *Merge) owner(k model.Key) int {
	for i, objs := range m.objects {
		if _, ok := objs[k]; ok {
			return i
		}
	}
	return -1
}

// Get returns the object in force.
func (m *Merge) Get(k model.Key) (convert.Object, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.owner(k); i >= 0 {
		return m.objects[i][k], true
	}
	return convert.Object{}, false
}

// Objects lists the objects in force, sorted by kind, namespace and name.
func (m *Merge) Objects() []convert.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []convert.Object
	for i, objs := range m.objects {
		for k, o := range objs {
			if m.owner(k) == i {
				out = append(out, o)
			}
		}
	}
	slices.SortFunc(out, func(a, b convert.Object) int { return model.CompareKeys(a.Key, b.Key) })
	return out
}

// Conflicts reports objects that have no effect because another source has them too.
func (m *Merge) Conflicts() []admin.Diagnostic {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []admin.Diagnostic
	for i, objs := range m.objects {
		for k, o := range objs {
			if w := m.owner(k); w != i {
				winner := m.objects[w][k]
				out = append(out, o.Diagnostic(admin.SeverityWarning, convert.CodeObjectShadowed, "metadata.name", k.Name,
					fmt.Sprintf("the object is in %s (%s) too, which wins over %s", m.sources[w].Name, winner.File, m.sources[i].Name), "remove one of them"))
			}
		}
	}
	return convert.Sort(out)
}
