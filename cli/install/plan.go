package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	"weft.mesh/weft/deploy"
	"weft.mesh/weft/deploy/render"
)

// Labels by which an install finds its own objects.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelRevision  = "weft.mesh/revision"
	labelShared    = "weft.mesh/shared"
	labelTag       = "istio.io/tag"
	manager        = "weft" // field manager, and value of labelManagedBy
)

// Namespace is where an install goes unless told otherwise.
const Namespace = "weft-system"

// Config says what to install.
type Config struct {
	Namespace  string // default [Namespace]
	Profile    string // default "default"
	Values     render.Values
	Version    string // of images, unless values name a tag
	KubeServer string // the cluster's version, for the templates
}

// Plan is what an install consists of.
type Plan struct {
	Config   Config
	Revision string // never empty
	Values   render.Values
	CRDs     []*unstructured.Unstructured // Istio's kinds
	Gateway  []*unstructured.Unstructured // the Gateway API's definitions
	Objects  []*unstructured.Unstructured // the rest, in order
}

// NewPlan renders the chart.
func NewPlan(c Config) (*Plan, error) {
	if c.Namespace == "" {
		c.Namespace = Namespace
	}
	chart, err := render.Load(deploy.Chart())
	if err != nil {
		return nil, err
	}
	if c.Version != "" {
		chart.SetAppVersion(c.Version)
	}
	p := &Plan{Config: c}
	if p.Values, err = chart.Values(c.Profile, c.Values); err != nil {
		return nil, err
	}
	if p.Revision, _ = p.Values["revision"].(string); p.Revision == "" {
		p.Revision = "default"
	}
	files, err := chart.Render(render.Release{Namespace: c.Namespace, Service: manager, KubeVersion: c.KubeServer}, p.Values)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		objs, err := decode([]byte(f.Text))
		if err != nil {
			return nil, fmt.Errorf("chart: %s: %w", f.Name, err)
		}
		p.Objects = append(p.Objects, objs...)
	}
	record, err := p.record()
	if err != nil {
		return nil, err
	}
	p.Objects = append(p.Objects, p.namespace(), record)
	if p.CRDs, err = istioDefinitions(); err != nil {
		return nil, err
	}
	if p.Gateway, err = gatewayDefinitions(); err != nil {
		return nil, err
	}
	return p, sortObjects(p.Objects)
}

// sortObjects orders by kind, then by name; kinds that are not known are an error.
func sortObjects(objs []*unstructured.Unstructured) error {
	var errs []error
	place := map[*unstructured.Unstructured]int{}
	for _, o := range objs {
		_, i, err := kindOf(o)
		errs = append(errs, err)
		place[o] = i
	}
	slices.SortStableFunc(objs, func(a, b *unstructured.Unstructured) int {
		return place[a] - place[b]
	})
	return errors.Join(errs...)
}

// decode reads YAML documents; empty ones are left out.
func decode(b []byte) ([]*unstructured.Unstructured, error) {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096)
	var out []*unstructured.Unstructured
	for {
		o := &unstructured.Unstructured{}
		if err := d.Decode(&o.Object); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

// The definitions are two megabytes of YAML, and never change: read once, when they are first needed.
var (
	istioDefinitions   = sync.OnceValues(func() ([]*unstructured.Unstructured, error) { return definitions("istio.yaml") })
	gatewayDefinitions = sync.OnceValues(func() ([]*unstructured.Unstructured, error) { return definitions("gateway-api.yaml") })
)

func definitions(name string) ([]*unstructured.Unstructured, error) {
	b, err := fs.ReadFile(deploy.CRDs(), name)
	if err != nil {
		return nil, err
	}
	return decode(b)
}

// suffix of names: none for the revision default.
func suffix(revision string) string {
	if revision == "default" {
		return ""
	}
	return "-" + revision
}

// namespace is the control plane's, with the Pod Security standard that its pods keep.
func (p *Plan) namespace() *unstructured.Unstructured {
	o := object("v1", "Namespace", "", p.Config.Namespace)
	o.SetLabels(map[string]string{
		labelManagedBy: manager, labelShared: "true",
		"pod-security.kubernetes.io/enforce": "restricted",
	})
	return o
}

// record keeps what was asked for, so that upgrade and verify know it.
func (p *Plan) record() (*unstructured.Unstructured, error) {
	b, err := sigsyaml.Marshal(p.Config.Values)
	if err != nil {
		return nil, err
	}
	o := object("v1", "ConfigMap", p.Config.Namespace, recordName(p.Revision))
	o.SetLabels(map[string]string{labelManagedBy: manager, labelRevision: p.Revision, "app.kubernetes.io/part-of": "weft"})
	o.Object["data"] = map[string]any{"profile": p.Config.Profile, "values": string(b), "version": p.Config.Version}
	return o, nil
}

func recordName(revision string) string { return "weft-install" + suffix(revision) }

func object(apiVersion, kind, ns, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
	o.SetName(name)
	o.SetNamespace(ns)
	return o
}

// on reads a boolean value; what is not there is false.
func (p *Plan) on(path ...string) bool {
	v, _, _ := unstructured.NestedBool(p.Values, path...)
	return v
}

// text reads a text value; what is not there is "".
func (p *Plan) text(path ...string) string {
	v, _, _ := unstructured.NestedString(p.Values, path...)
	return v
}

// YAML is the whole plan as documents that kubectl apply takes.
func (p *Plan) YAML() ([]byte, error) {
	var out bytes.Buffer
	all := slices.Clone(p.CRDs)
	if p.text("crds", "mode") == "none" {
		all = nil
	}
	if p.text("gatewayAPI", "crds") == "auto" {
		all = append(all, p.Gateway...)
	}
	for _, o := range append(all, p.Objects...) {
		b, err := sigsyaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "---\n%s", b)
	}
	return out.Bytes(), nil
}
