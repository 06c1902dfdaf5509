package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
)

// view is one look at everything but traffic. Nothing in it changes after it
// was published. Where a part could not be read it holds the last that could,
// and the error.
type view struct {
	at         time.Time
	pods       []admin.Pod
	podsErr    error
	status     *admin.ControlStatus // nil: never read
	statusErr  error
	objects    []admin.Object
	objectsErr error
	objectsAt  time.Time
	scrapeErrs map[string]string // by podKey

	// Revisions go up when the answer of an endpoint changes.
	revisions Revisions
	encoded   [3][]byte // what the revisions number
}

// number sets the revisions by comparing with the view before.
func (v *view) number(old *view) {
	v.revisions = old.revisions
	for i, part := range []struct {
		value any
		n     *uint64
	}{
		{v.podList(), &v.revisions.Pods}, {v.proxyList(), &v.revisions.Proxies}, {v.objectList(), &v.revisions.Objects},
	} {
		b, err := json.Marshal(part.value)
		if err != nil || !bytes.Equal(b, old.encoded[i]) {
			*part.n++
		}
		v.encoded[i] = b
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (v *view) podList() *PodList {
	return &PodList{Error: message(v.podsErr), Items: list(v.pods), ScrapeErrors: v.scrapeErrs}
}

func (v *view) proxyList() *ProxyList {
	out := &ProxyList{Error: message(v.statusErr), Items: []admin.ProxyStatus{}}
	if v.status != nil {
		out.World, out.Items = v.status.World, list(v.status.Proxies)
	}
	return out
}

func (v *view) objectList() *ObjectList {
	out := &ObjectList{Error: message(v.objectsErr), Items: []ObjectHead{}, Problems: []admin.Diagnostic{}}
	for i := range v.objects {
		out.Items = append(out.Items, head(&v.objects[i]))
	}
	if v.status != nil {
		out.Problems = list(v.status.Problems)
	}
	return out
}

// list is never null in JSON.
func list[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}

func head(o *admin.Object) ObjectHead {
	return ObjectHead{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Source: o.Source, Revision: o.Revision}
}

// errNoObject is answered with 404.
var errNoObject = errors.New("no such object")

// object finds one object by kind, namespace and name.
func (v *view) object(q url.Values) (*Object, error) {
	for i := range v.objects {
		o := &v.objects[i]
		if o.Kind != q.Get("kind") || o.Namespace != q.Get("namespace") || o.Name != q.Get("name") {
			continue
		}
		clean, err := hide(o.Kind, o.Raw)
		if err != nil {
			return nil, err
		}
		text, err := yaml.JSONToYAML(clean)
		if err != nil {
			return nil, err
		}
		return &Object{ObjectHead: head(o), YAML: string(text)}, nil
	}
	return nil, errNoObject
}
