package kubetest

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// target is what a request's path names.
type target struct {
	r             *resource
	ns, name, sub string
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if r.URL.Path == "/apis/authentication.k8s.io/v1/tokenreviews" {
		s.review(w, r)
		return
	}
	if r.URL.Path == "/apis/authorization.k8s.io/v1/subjectaccessreviews" {
		s.accessReview(w, r)
		return
	}
	if parts[0] == "apis" && len(parts) <= 3 {
		s.discover(w, parts[1:])
		return
	}
	t, ok := s.find(parts)
	switch {
	case !ok:
		fail(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource")
	case s.isForbidden(t.r.key):
		fail(w, http.StatusForbidden, "Forbidden", "%s is forbidden: User \"system:serviceaccount:weft-system:weft\" cannot use it", t.r.key)
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") != "":
		s.watch(w, r, t)
	case r.Method == http.MethodGet && t.name == "":
		s.list(w, r, t)
	default:
		s.single(w, r, t)
	}
}

func (s *Server) isForbidden(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forbidden[key]
}

// find reads /api/v1/[namespaces/NS/]plural[/name[/sub]] and /apis/group/version/….
func (s *Server) find(parts []string) (target, bool) {
	n := 2
	if parts[0] == "apis" {
		n = 3
	}
	if len(parts) <= n {
		return target{}, false
	}
	version, rest := strings.Join(parts[1:n], "/"), parts[n:]
	var t target
	if rest[0] == "namespaces" && len(rest) > 2 {
		t.ns, rest = rest[1], rest[2:]
	}
	s.mu.Lock()
	t.r = s.resources[version+"/"+rest[0]]
	s.mu.Unlock()
	if len(rest) > 1 {
		t.name = rest[1]
	}
	if len(rest) > 2 {
		t.sub = rest[2]
	}
	return t, t.r != nil
}

func (s *Server) discover(w http.ResponseWriter, parts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions, found := []any{}, []any{}
	for _, key := range slices.Sorted(keys(s.resources)) {
		p := strings.Split(key, "/")
		if len(p) != 3 || len(parts) == 0 || p[0] != parts[0] {
			continue
		}
		v := Object{"groupVersion": p[0] + "/" + p[1], "version": p[1]}
		if !slices.ContainsFunc(versions, func(have any) bool { return have.(Object)["version"] == p[1] }) {
			versions = append(versions, v)
		}
		if len(parts) == 2 && p[1] == parts[1] {
			found = append(found, Object{"name": p[2], "kind": s.resources[key].kind, "namespaced": s.resources[key].namespaced, "verbs": []string{"list", "watch"}})
		}
	}
	switch {
	case len(versions) == 0 || len(parts) == 2 && len(found) == 0:
		fail(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource")
	case len(parts) == 2:
		answer(w, http.StatusOK, Object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": parts[0] + "/" + parts[1], "resources": found})
	default:
		answer(w, http.StatusOK, Object{"kind": "APIGroup", "apiVersion": "v1", "name": parts[0], "versions": versions, "preferredVersion": versions[0]})
	}
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// shape is the object as the request wants it: whole, or its metadata alone.
func shape(r *http.Request, o Object) Object {
	if !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
		return o
	}
	return Object{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"]}
}

// matches honours the field and label selectors that Weft uses: a=b and a!=b.
func matches(r *http.Request, o Object) bool {
	labels, _ := meta(o)["labels"].(Object)
	for _, l := range strings.Split(r.URL.Query().Get("labelSelector"), ",") {
		if key, want, ok := strings.Cut(l, "="); ok && text(labels, key) != want {
			return false
		}
	}
	for _, f := range strings.Split(r.URL.Query().Get("fieldSelector"), ",") {
		path, want, not := strings.Cut(f, "!=")
		if !not {
			if path, want, not = strings.Cut(f, "="); !not {
				continue
			}
			not = false
		}
		var cur any = o
		for _, p := range strings.Split(path, ".") {
			m, _ := cur.(Object)
			cur = m[p]
		}
		have, _ := cur.(string)
		if (have == want) == not {
			return false
		}
	}
	return true
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, t target) {
	s.mu.Lock()
	items := []any{}
	for _, id := range slices.Sorted(keys(t.r.objects)) {
		if o := t.r.objects[id]; (t.ns == "" || text(meta(o), "namespace") == t.ns) && matches(r, o) {
			items = append(items, shape(r, clone(o)))
		}
	}
	rev := strconv.FormatInt(s.revision, 10)
	s.mu.Unlock()
	kind, version := t.r.kind+"List", t.r.key[:strings.LastIndexByte(t.r.key, '/')]
	if strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	answer(w, http.StatusOK, Object{"kind": kind, "apiVersion": version, "metadata": Object{"resourceVersion": rev}, "items": items})
}

// watch sends what there is if it is asked to (WatchList), and then what
// changes. It has no history: a watch from an old version is told that it expired.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, t target) {
	q := r.URL.Query()
	initial := q.Get("sendInitialEvents") == "true"
	x := &watcher{ns: t.ns, events: make(chan Object, 50_000), gone: make(chan struct{})}
	s.mu.Lock()
	rev := strconv.FormatInt(s.revision, 10)
	if from := q.Get("resourceVersion"); !initial && from != "" && from != "0" && from != rev && s.changedSince(t.r, from) {
		s.mu.Unlock()
		fail(w, http.StatusGone, "Expired", "too old resource version: %s", from)
		return
	}
	if initial {
		for _, id := range slices.Sorted(keys(t.r.objects)) {
			if o := t.r.objects[id]; t.ns == "" || text(meta(o), "namespace") == t.ns {
				x.events <- Object{"type": "ADDED", "object": clone(o)}
			}
		}
		x.events <- Object{"type": "BOOKMARK", "object": Object{"kind": t.r.kind, "apiVersion": t.r.key[:strings.LastIndexByte(t.r.key, '/')],
			"metadata": Object{"resourceVersion": rev, "annotations": Object{"k8s.io/initial-events-end": "true"}}}}
	}
	t.r.watchers[x] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(t.r.watchers, x)
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	enc := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case <-x.gone:
			return
		case e := <-x.events:
			o := e["object"].(Object)
			if e["type"] != "BOOKMARK" && !matches(r, o) {
				if e["type"] == "ADDED" {
					continue
				}
				e["type"] = "DELETED"
			}
			e["object"] = shape(r, o)
			if enc.Encode(e) != nil {
				return
			}
			if len(x.events) == 0 {
				_ = flush.Flush()
			}
		}
	}
}

// changedSince tells whether anything of a resource is newer than a version. mu is held.
func (s *Server) changedSince(r *resource, version string) bool {
	from, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return true
	}
	for _, o := range r.objects {
		if v, _ := strconv.ParseInt(text(meta(o), "resourceVersion"), 10, 64); v > from {
			return true
		}
	}
	return false
}

// single reads or writes one object.
func (s *Server) single(w http.ResponseWriter, r *http.Request, t target) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodGet {
		s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	}
	id := t.ns + "/" + t.name
	have := t.r.objects[id]
	if have == nil && t.name != "" && !(r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml") {
		fail(w, http.StatusNotFound, "NotFound", "%s %q not found", t.r.key, t.name)
		return
	}
	if r.Header.Get("Content-Type") == "application/json-patch+json" {
		s.jsonPatch(w, t, have, body)
		return
	}
	var in Object
	if len(body) > 0 && r.Method != http.MethodDelete {
		if err := json.Unmarshal(body, &in); err != nil {
			fail(w, http.StatusBadRequest, "BadRequest", "%v", err)
			return
		}
	}
	switch r.Method {
	case http.MethodGet:
		answer(w, http.StatusOK, shape(r, have))
	case http.MethodPost:
		name := text(meta(in), "name")
		if t.ns != "" {
			meta(in)["namespace"] = t.ns
		}
		if t.r.objects[t.ns+"/"+name] != nil {
			fail(w, http.StatusConflict, "AlreadyExists", "%s %q already exists", t.r.key, name)
			return
		}
		answer(w, http.StatusCreated, s.store(t.r, in))
	case http.MethodPut:
		if v := text(meta(in), "resourceVersion"); v != "" && v != text(meta(have), "resourceVersion") {
			fail(w, http.StatusConflict, "Conflict", "the object has been modified")
			return
		}
		answer(w, http.StatusOK, s.store(t.r, part(t.sub, have, in)))
	case http.MethodPatch:
		if have == nil {
			have = Object{"metadata": Object{"namespace": t.ns, "name": t.name}}
			if t.ns == "" {
				delete(meta(have), "namespace")
			}
		}
		if v := text(meta(in), "resourceVersion"); v != "" && v != text(meta(have), "resourceVersion") {
			fail(w, http.StatusConflict, "Conflict", "the object has been modified")
			return
		}
		answer(w, http.StatusOK, s.store(t.r, part(t.sub, have, merge(clone(have), in))))
	case http.MethodDelete:
		s.remove(t.r, id)
		answer(w, http.StatusOK, Object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	}
}

// jsonPatch is RFC 6902 as far as it is used: test, and add of members of objects. mu is held.
func (s *Server) jsonPatch(w http.ResponseWriter, t target, have Object, body []byte) {
	var ops []struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	if err := json.Unmarshal(body, &ops); err != nil {
		fail(w, http.StatusBadRequest, "BadRequest", "%v", err)
		return
	}
	next := clone(have)
	for _, op := range ops {
		var cur any = next
		parts := strings.Split(strings.TrimPrefix(op.Path, "/"), "/")
		for _, p := range parts[:len(parts)-1] {
			switch v := cur.(type) {
			case Object:
				cur = v[p]
			case []any:
				i, err := strconv.Atoi(p)
				if err != nil || i >= len(v) {
					fail(w, http.StatusUnprocessableEntity, "Invalid", "no %s", op.Path)
					return
				}
				cur = v[i]
			}
		}
		m, ok := cur.(Object)
		last := parts[len(parts)-1]
		if !ok || op.Op == "test" && m[last] != op.Value {
			fail(w, http.StatusUnprocessableEntity, "Invalid", "%s failed", op.Path)
			return
		}
		if op.Op == "add" {
			m[last] = op.Value
		}
	}
	answer(w, http.StatusOK, s.store(t.r, next))
}

// part takes from in what the subresource is about: status, or all the rest.
func part(sub string, have, in Object) Object {
	if sub == "status" {
		out := clone(have)
		out["status"] = in["status"]
		return out
	}
	if st, ok := have["status"]; ok {
		in["status"] = st
	}
	return in
}

// merge is a JSON merge patch (RFC 7396). An apply patch is merged as well, which is what it does where nobody else owns fields.
func merge(to, patch Object) Object {
	for k, v := range patch {
		p, isObject := v.(Object)
		old, wasObject := to[k].(Object)
		switch {
		case v == nil:
			delete(to, k)
		case isObject && wasObject:
			to[k] = merge(old, p)
		case isObject:
			to[k] = merge(Object{}, p)
		default:
			to[k] = v
		}
	}
	return to
}

func (s *Server) review(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Spec struct {
			Token     string   `json:"token"`
			Audiences []string `json:"audiences"`
		} `json:"spec"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		fail(w, http.StatusBadRequest, "BadRequest", "%v", err)
		return
	}
	s.mu.Lock()
	f := s.reviews
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	st := Object{"authenticated": false, "error": "nobody reviews tokens here"}
	if f != nil {
		st = f(in.Spec.Token, in.Spec.Audiences)
	}
	answer(w, http.StatusCreated, Object{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": Object{}, "status": st})
}

func (s *Server) accessReview(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Spec struct {
			User               string `json:"user"`
			ResourceAttributes struct{ Namespace, Verb, Group, Resource string }
		} `json:"spec"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		fail(w, http.StatusBadRequest, "BadRequest", "%v", err)
		return
	}
	s.mu.Lock()
	f := s.access
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	a := in.Spec.ResourceAttributes
	allowed := f != nil && f(in.Spec.User, a.Namespace, a.Verb, a.Group+"/"+a.Resource)
	answer(w, http.StatusCreated, Object{"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": Object{}, "spec": Object{}, "status": Object{"allowed": allowed}})
}
