package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/control/source/file"
	"weft.mesh/weft/control/source/merge"
	"weft.mesh/weft/control/source/store"
	"weft.mesh/weft/model"
)

// config is all configuration: sources, checks, the merged view, and the way
// of each object into the World. The store wins over files, so that an object
// that came from a file can be changed by weft apply and weft scale.
type config struct {
	set        Settings
	worlds     *snapshot.Store
	metrics    *metrics
	store      *store.Store
	files      *file.Source
	merged     *merge.Merge
	opts       convert.Options
	synced     chan struct{} // closed when all sources have said what they hold
	gatewayAPI *gatewayAPI
	writing    sync.Mutex // one change of the store at a time: checked against what it changes

	mu       sync.Mutex // protects the following
	revision uint64
	watchers map[*watcher]struct{}
	refused  map[model.Key][]admin.Diagnostic // objects that model refused
	arrived  *signal                          // the merged view changed
}

// Names of sources, for messages.
const (
	sourceStore = "the store"
	sourceFiles = "files"
	sourcePods  = "the local runtime"
)

func newConfig(set Settings, worlds *snapshot.Store, m *metrics) (*config, error) {
	c := &config{
		set: set, worlds: worlds, metrics: m,
		opts:   convert.Options{CheckDeployment: set.CheckDeployment},
		synced: make(chan struct{}), watchers: map[*watcher]struct{}{},
		refused: map[model.Key][]admin.Diagnostic{}, arrived: newSignal(), gatewayAPI: newGatewayAPI(set, worlds),
	}
	var err error
	if c.store, err = store.Open(filepath.Join(set.StateDir, set.Store), store.Settings{Options: c.opts}); err != nil {
		return nil, err
	}
	c.files = file.New(file.Settings{
		Paths: set.Files, Options: c.opts,
		Check: func(changed []convert.Object, deleted []model.Key) []admin.Diagnostic {
			return c.check(changed, deleted)
		},
		OnProblems: c.logFiles,
	})
	sources := []merge.Named{{Name: sourceStore, Source: c.store}, {Name: sourceFiles, Source: c.files}}
	if set.Pods {
		dir := filepath.Join(set.StateDir, admin.DirPods)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("control plane: %w", err)
		}
		// Endpoints must move fast: the runtime writes whole files by rename.
		pods := file.New(file.Settings{Paths: []string{dir}, Options: convert.Options{Pods: true}, Quiet: podsQuiet, OnProblems: c.logFiles})
		sources = append(sources, merge.Named{Name: sourcePods, Source: pods})
	}
	c.merged = merge.New(append(sources, set.Sources...)...)
	return c, nil
}

func (c *config) run(ctx context.Context) error { return c.merged.Run(ctx, c) }

func (c *config) close() error { return c.store.Close() }

// wait returns when all sources have said what they hold.
func (c *config) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.synced:
		return nil
	}
}

func (c *config) check(changed []convert.Object, deleted []model.Key) []admin.Diagnostic {
	mesh := c.set.Mesh
	mesh.Ingress = c.gatewayAPI.ingressSettings()
	return analyze.Check(c.merged.Objects(), changed, deleted, analyze.Options{Mesh: mesh})
}

// logFiles logs errors of watched files, and whether what they held before serves on.
func (c *config) logFiles(ds []admin.Diagnostic) {
	served := map[string]bool{}
	for _, o := range c.merged.Objects() {
		served[o.File] = true
	}
	for _, d := range ds {
		msg := "config: a file is refused, nothing of it serves"
		if served[d.File] {
			msg = "config: a file is refused, its last good version serves"
		}
		c.logError(msg, d)
	}
}

func (c *config) logError(msg string, d admin.Diagnostic) {
	if d.Severity == admin.SeverityError {
		c.set.Log.Error(msg, "file", d.File, "line", d.Line, "object", d.Object, "field", d.Field, "reason", d.Message)
	}
}

// Put implements source.Sink.
func (c *config) Put(objs ...convert.Object) {
	changes := make([]snapshot.Change, 0, len(objs))
	c.mu.Lock()
	for i := range objs {
		o := &objs[i]
		c.metrics.inbound.WithLabelValues(string(o.Key.Kind)).Inc()
		values, ds := convert.ToModel(o, c.set.Mesh)
		delete(c.refused, o.Key)
		c.gatewayAPI.put(o, values)
		if convert.HasErrors(ds) {
			// Checks let nothing through that model refuses; an object of
			// another version's store is the exception, and must be seen.
			c.refused[o.Key] = ds
			for _, d := range ds {
				c.logError("config: an object is refused, what it was before serves", d)
			}
			continue
		}
		changes = append(changes, snapshot.Change{Key: o.Key, Objects: values})
		c.tell(admin.EventPut, o)
	}
	c.mu.Unlock()
	c.gatewayAPI.apply(changes...)
	c.arrived.fire()
	c.recheck(len(objs) > 0 && objs[0].Key.Kind != model.KindPod)
}

// Delete implements source.Sink.
func (c *config) Delete(keys ...model.Key) {
	changes := make([]snapshot.Change, 0, len(keys))
	c.mu.Lock()
	for _, k := range keys {
		delete(c.refused, k)
		c.gatewayAPI.remove(k)
		changes = append(changes, snapshot.Change{Key: k})
		c.tell(admin.EventDelete, &convert.Object{Key: k})
	}
	c.mu.Unlock()
	c.gatewayAPI.apply(changes...)
	c.arrived.fire()
	c.recheck(len(keys) > 0 && keys[0].Kind != model.KindPod)
}

// recheck looks at refused files again: what they were waiting for may be there now.
func (c *config) recheck(configChanged bool) {
	if configChanged && convert.HasErrors(c.files.Problems()) {
		c.files.Recheck()
	}
}

// Synced implements source.Sink.
func (c *config) Synced() {
	close(c.synced)
	c.gatewayAPI.sourcesRead()
	c.recheck(true)
}

var _ source.Sink = (*config)(nil)

// problems lists what is wrong with the configuration that is there.
func (c *config) problems() []admin.Diagnostic {
	out := slices.Concat(c.store.Problems(), c.files.Problems(), c.merged.Conflicts(), c.gatewayAPI.problems())
	c.mu.Lock()
	for _, ds := range c.refused {
		out = append(out, ds...)
	}
	c.mu.Unlock()
	return convert.Sort(out)
}

func (c *config) list(kind, ns, name string) admin.ObjectList {
	c.mu.Lock()
	rev := c.revision
	c.mu.Unlock()
	out := admin.ObjectList{Revision: rev, Items: []admin.Object{}}
	f := filter(kind, ns, name)
	for _, o := range c.merged.Objects() {
		if o.Key.Kind == model.KindPod && kind != string(model.KindPod) {
			continue // the runtime's, see weft ps
		}
		if f(o.Key) {
			shown := o.Admin(rev)
			shown.Raw = c.gatewayAPI.show(o.Key, shown.Raw)
			out.Items = append(out.Items, shown)
		}
	}
	return out
}

// decode reads the files of a request.
func (c *config) decode(files []admin.File, ns string) ([]convert.Object, []admin.Diagnostic) {
	opts := c.opts
	opts.Namespace = ns
	var objs []convert.Object
	var ds []admin.Diagnostic
	for _, f := range files {
		o, d := convert.Decode(f, opts)
		objs, ds = append(objs, o...), append(ds, d...)
	}
	if len(files) > 0 && len(objs) == 0 && len(ds) == 0 {
		ds = append(ds, admin.Diagnostic{Severity: admin.SeverityError, Code: codeNoObject, File: files[0].Name,
			Message: "no object is in " + plural(len(files), "the file", "the files"), Hint: "is this the file you meant, and was it saved?"})
	}
	return objs, ds
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// apply checks files against everything that is there and stores all of it or nothing.
func (c *config) apply(ctx context.Context, req admin.ApplyRequest) (admin.ApplyResponse, error) {
	objs, ds := c.decode(req.Files, req.Namespace)
	return c.put(ctx, objs, ds, req.DryRun)
}

func (c *config) put(ctx context.Context, objs []convert.Object, ds []admin.Diagnostic, dry bool) (admin.ApplyResponse, error) {
	if err := c.wait(ctx); err != nil {
		return admin.ApplyResponse{}, err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	ds = append(ds, c.check(objs, nil)...)
	ds = convert.Sort(append(ds, c.shadows(objs)...))
	resp := admin.ApplyResponse{Diagnostics: ds}
	if convert.HasErrors(ds) {
		c.metrics.failed.Inc()
		return resp, nil
	}
	c.metrics.passed.Inc()
	resp.Results = c.plan(objs)
	if dry {
		return resp, nil
	}
	if _, _, err := c.store.Apply(objs, nil); err != nil {
		return admin.ApplyResponse{Diagnostics: ds}, err
	}
	return resp, c.await(ctx, objs, nil)
}

// shadows warns where the store is about to hide an object of a watched file,
// whose later changes would have no effect.
func (c *config) shadows(objs []convert.Object) []admin.Diagnostic {
	var out []admin.Diagnostic
	for _, o := range objs {
		have, ok := c.merged.Get(o.Key)
		if !ok || have.File == convert.SourceStore {
			continue
		}
		out = append(out, admin.Diagnostic{Severity: admin.SeverityWarning, Code: convert.CodeObjectShadowed, Object: o.Key.String(),
			Message: "the object comes from " + have.File + "; the store's version wins, and changes of the file have no effect any more",
			Hint:    fmt.Sprintf("change the file instead; weft delete %s %s brings its version back", strings.ToLower(string(o.Key.Kind)), refName(o.Key))})
	}
	return out
}

// refName is how a person names an object on the command line.
func refName(k model.Key) string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// plan says what apply would do, seen against the merged view.
func (c *config) plan(objs []convert.Object) []admin.Applied {
	var out []admin.Applied
	earlier := map[model.Key]convert.Object{} // in the same request
	for _, o := range objs {
		a := admin.Applied{Kind: string(o.Key.Kind), Namespace: o.Key.Namespace, Name: o.Key.Name, Action: admin.ActionCreated}
		have, ok := earlier[o.Key]
		if !ok {
			have, ok = c.merged.Get(o.Key)
		}
		earlier[o.Key] = o
		if ok {
			a.Action = admin.ActionConfigured
			if bytes.Equal(have.Raw, o.Raw) {
				a.Action = admin.ActionUnchanged
			}
		}
		out = append(out, a)
	}
	return out
}

// await waits until the merged view shows what was written to the store.
func (c *config) await(ctx context.Context, puts []convert.Object, deletes []model.Key) error {
	for {
		next := c.arrived.next()
		if c.shows(puts, deletes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

func (c *config) shows(puts []convert.Object, deletes []model.Key) bool {
	last := map[model.Key][]byte{}
	for _, o := range puts {
		last[o.Key] = o.Raw
	}
	for k, raw := range last {
		have, ok := c.merged.Get(k)
		if !ok || have.File != convert.SourceStore || !bytes.Equal(have.Raw, raw) {
			return false
		}
	}
	for _, k := range deletes {
		if have, ok := c.merged.Get(k); ok && have.File == convert.SourceStore {
			return false
		}
	}
	return true
}

// diff says what apply would change.
func (c *config) diff(ctx context.Context, req admin.ApplyRequest) (admin.DiffResponse, error) {
	if err := c.wait(ctx); err != nil {
		return admin.DiffResponse{}, err
	}
	objs, ds := c.decode(req.Files, req.Namespace)
	resp := admin.DiffResponse{Diagnostics: convert.Sort(append(ds, c.check(objs, nil)...))}
	for i, a := range c.plan(objs) {
		ch := admin.Change{Applied: a}
		if have, ok := c.merged.Get(objs[i].Key); ok {
			ch.Before = text(have.Shown())
		}
		ch.After = text(objs[i].Shown())
		resp.Changes = append(resp.Changes, ch)
	}
	return resp, nil
}

// text is an object as YAML, for people.
func text(raw json.RawMessage) string {
	b, err := yaml.JSONToYAML(raw)
	if err != nil {
		return string(raw)
	}
	return string(b)
}

// delete removes objects from the store. What a file holds is not ours to remove.
func (c *config) delete(ctx context.Context, req admin.DeleteRequest) (admin.ApplyResponse, error) {
	if err := c.wait(ctx); err != nil {
		return admin.ApplyResponse{}, err
	}
	objs, ds := c.decode(req.Files, req.Namespace)
	var keys []model.Key
	for _, o := range objs {
		keys = append(keys, o.Key)
	}
	for _, r := range req.Refs {
		keys = append(keys, model.Key{Kind: model.Kind(r.Kind), Namespace: r.Namespace, Name: r.Name})
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	for _, k := range keys {
		if d, bad := c.deletable(k); bad {
			ds = append(ds, d)
		}
	}
	ds = convert.Sort(append(ds, c.check(nil, keys)...))
	resp := admin.ApplyResponse{Diagnostics: ds}
	if convert.HasErrors(ds) {
		return resp, nil
	}
	var err error
	if resp.Results, _, err = c.store.Apply(nil, keys); err != nil {
		return resp, err
	}
	return resp, c.await(ctx, nil, keys)
}

// deletable says what keeps an object from being deleted.
func (c *config) deletable(k model.Key) (admin.Diagnostic, bool) {
	if _, ok := c.store.Get(k); ok {
		return admin.Diagnostic{}, false
	}
	d := admin.Diagnostic{Severity: admin.SeverityError, Object: k.String()}
	if have, ok := c.merged.Get(k); ok {
		d.Code, d.Message = codeFromFile, "the object comes from "+have.File+", not from the store"
		d.Hint = "remove it from that file, which is watched"
		return d, true
	}
	d.Code, d.Message = codeNotFound, "the object does not exist"
	d.Hint = "see weft get all"
	return d, true
}

// Codes of diagnostics that only a running control plane gives.
const (
	codeNotFound = "not-found"
	codeFromFile = "from-file"
	codeNoObject = "no-object"
)

// scale sets a Deployment's replicas; the result lives in the store.
func (c *config) scale(ctx context.Context, req admin.ScaleRequest) (admin.ApplyResponse, error) {
	if err := c.wait(ctx); err != nil {
		return admin.ApplyResponse{}, err
	}
	k := model.Key{Kind: model.KindDeployment, Namespace: req.Namespace, Name: req.Name}
	have, ok := c.merged.Get(k)
	if !ok {
		d, _ := c.deletable(k)
		d.Hint = "see weft get deployments"
		return admin.ApplyResponse{Diagnostics: []admin.Diagnostic{d}}, nil
	}
	var obj map[string]any
	if err := json.Unmarshal(have.Raw, &obj); err != nil {
		return admin.ApplyResponse{}, err
	}
	spec, ok := obj["spec"].(map[string]any)
	if !ok {
		return admin.ApplyResponse{}, fmt.Errorf("%s has no spec", k)
	}
	spec["replicas"] = req.Replicas
	raw, err := json.Marshal(obj)
	if err != nil {
		return admin.ApplyResponse{}, err
	}
	objs, ds := c.decode([]admin.File{{Name: "weft scale", Content: string(raw)}}, req.Namespace)
	return c.put(ctx, objs, ds, false)
}
