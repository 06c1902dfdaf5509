package convert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

// Decode reads one file of YAML or JSON documents. It returns the objects that
// have no error and everything there is to say about the others; a bad
// document does not hide the ones after it. A kind List is taken apart.
func Decode(file admin.File, opts Options) ([]Object, []admin.Diagnostic) {
	d := &decoder{file: file.Name, opts: opts}
	if d.opts.Namespace == "" {
		d.opts.Namespace = "default"
	}
	text := bytes.TrimPrefix([]byte(file.Content), []byte("\xef\xbb\xbf"))
	if e := checkText(text); e != nil {
		d.syntax(e)
		return nil, d.diags
	}
	for _, c := range splitDocuments(text) {
		doc, e := c.parse()
		if e != nil {
			d.syntax(e)
		} else if doc != nil {
			d.document(doc.node, doc.offset, 0)
		}
	}
	return d.objects, Sort(d.diags)
}

// DecodeStored reads an object that the store kept as JSON. It was checked
// before it was stored, so that errors here come from an older or newer Weft.
func DecodeStored(raw json.RawMessage, source string, opts Options) (Object, []admin.Diagnostic) {
	objs, diags := Decode(admin.File{Name: source, Content: string(raw)}, opts)
	for i := range diags {
		diags[i].Line, diags[i].Column = 0, 0
	}
	if HasErrors(diags) || len(objs) != 1 {
		if !HasErrors(diags) {
			diags = append(diags, admin.Diagnostic{Severity: admin.SeverityError, Code: CodeInvalidYAML, File: source, Message: "not one object"})
		}
		return Object{}, diags
	}
	objs[0].unplaced = true
	return objs[0], diags
}

type decoder struct {
	file    string
	opts    Options
	objects []Object
	diags   []admin.Diagnostic
	seen    map[model.Key]int // line of the first object with the key
}

func (d *decoder) syntax(e *syntaxError) {
	d.diags = append(d.diags, admin.Diagnostic{Severity: admin.SeverityError, Code: e.code, File: d.file, Line: e.line, Column: e.col,
		Value: clip(e.value), Message: e.msg, Hint: e.hint})
}

// header is what must be known of a document before its schema is.
type header struct {
	apiVersion, kind, name, namespace string
	kindNode, versionNode             *yaml.Node
}

func deref(n *yaml.Node) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.AliasNode && i < 8; i++ {
		n = n.Alias
	}
	return n
}

func lookup(n *yaml.Node, key string) *yaml.Node {
	n = deref(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return deref(n.Content[i+1])
		}
	}
	return nil
}

func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || isNull(n) {
		return ""
	}
	return n.Value
}

func peek(n *yaml.Node) header {
	h := header{kindNode: lookup(n, "kind"), versionNode: lookup(n, "apiVersion")}
	h.kind, h.apiVersion = text(h.kindNode), text(h.versionNode)
	meta := lookup(n, "metadata")
	h.name, h.namespace = text(lookup(meta, "name")), text(lookup(meta, "namespace"))
	return h
}

// document decodes one document, or each item of a List.
func (d *decoder) document(n *yaml.Node, offset, depth int) {
	w := &walker{file: d.file, offset: offset, pos: map[string]position{}, active: map[*yaml.Node]bool{}, lenient: d.opts.Pods}
	defer func() { d.diags = append(d.diags, w.diags...) }()
	n = deref(n)
	if n.Kind != yaml.MappingNode {
		w.fail(CodeInvalidYAML, n, "", scalarText(n), "the document is not an object", "write apiVersion, kind, metadata and spec")
		return
	}
	h := peek(n)
	w.object = h.describe()
	if h.kind == "List" && h.apiVersion == "v1" && depth == 0 {
		d.list(n, offset, w)
		return
	}
	info := d.kind(w, n, h)
	if info == nil {
		return
	}
	d.decode(w, n, info)
}

func (h header) describe() string {
	switch {
	case h.kind == "":
		return ""
	case h.namespace == "":
		return strings.TrimSpace(h.kind + " " + h.name)
	}
	return h.kind + " " + h.namespace + "/" + h.name
}

func (d *decoder) list(n *yaml.Node, offset int, w *walker) {
	items := lookup(n, "items")
	if items == nil || items.Kind != yaml.SequenceNode {
		w.fail(CodeMissingField, n, "items", "", "a List needs items", "add items, or remove the document")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; !slices.Contains([]string{"apiVersion", "kind", "metadata", "items"}, k.Value) {
			w.fail(CodeUnknownField, k, k.Value, "", fmt.Sprintf("a List has no field %q", k.Value), "known: apiVersion, items, kind, metadata")
		}
	}
	if len(items.Content) > MaxNodes/10 {
		w.fail(CodeTooLarge, items, "items", strconv.Itoa(len(items.Content)), "the list has too many items", "split it")
		return
	}
	for _, item := range items.Content {
		d.document(item, offset, 1)
	}
}

// kind finds the kind's description, or says why there is none.
func (d *decoder) kind(w *walker, n *yaml.Node, h header) *kindInfo {
	if h.kind == "" || h.apiVersion == "" {
		missing := "kind"
		if h.kind != "" {
			missing = "apiVersion"
		}
		w.fail(CodeMissingField, n, missing, "", missing+" is missing", "every document needs apiVersion and kind")
		return nil
	}
	info := kinds()[kindOf(h.kind, h.apiVersion)]
	switch {
	case info != nil && !slices.Contains(info.versions, h.apiVersion):
		hint := "use " + info.versions[0]
		w.fail(CodeUnknownKind, h.versionNode, "apiVersion", h.apiVersion, fmt.Sprintf("%s of %q is not supported", h.kind, h.apiVersion), hint)
		return nil
	case info == nil || info.kind == model.KindPod && !d.opts.Pods:
		msg := fmt.Sprintf("kind %s is not supported; supported: %s", h.kind, quoteList(Kinds()))
		hint, ok := instead[h.kind]
		if !ok {
			hint = meant(h.kind, Kinds())
			if Nearest(h.kind, Kinds()) == "" {
				hint = "remove the document"
			}
		}
		w.fail(CodeUnknownKind, h.kindNode, "kind", h.kind, msg, hint)
		return nil
	case d.opts.Pods && info.kind != model.KindPod:
		w.fail(CodeUnknownKind, h.kindNode, "kind", h.kind, "only Pods are read here", "this directory belongs to the local runtime: put the file elsewhere")
		return nil
	}
	return info
}

func (d *decoder) decode(w *walker, n *yaml.Node, info *kindInfo) {
	got := w.walk(n, info.schema, "", 0)
	if info.kind == model.KindSecret {
		w.hideValues()
	}
	if HasErrors(w.diags) || !got.ok {
		return
	}
	raw, canon := got.raw.(map[string]any), got.canon.(map[string]any)
	o := Object{File: d.file, pos: positions{w.pos}}
	o.pos.at[""] = w.at(n)
	o.APIVersion, _ = raw["apiVersion"].(string)
	if !d.metadata(w, &o, info, raw) {
		return
	}
	w.object = o.Key.String()
	for i := range w.diags {
		w.diags[i].Object = w.object
	}
	if _, ok := raw["spec"]; !ok && !info.specless {
		w.problem(&o, admin.SeverityError, CodeMissingField, "spec", "", "spec is missing", "every "+string(info.kind)+" needs a spec")
		return
	}
	if err := o.fill(info, raw, canon); err != nil {
		w.problem(&o, admin.SeverityError, CodeInvalidValue, "", "", err.Error(), "compare the object with the reference of its kind")
		return
	}
	d.deployment(w, &o)
	if HasErrors(w.diags) {
		return
	}
	d.keep(w, o)
}

// keep adds the object unless the file had it already.
func (d *decoder) keep(w *walker, o Object) {
	line, _ := o.Position("")
	if first, dup := d.seen[o.Key]; dup {
		w.problem(&o, admin.SeverityError, CodeDuplicateObject, "metadata.name", o.Key.Name, fmt.Sprintf("the object is written twice, first in line %d", first), "keep one of them")
		return
	}
	if d.seen == nil {
		d.seen = map[model.Key]int{}
	}
	d.seen[o.Key] = line
	d.objects = append(d.objects, o)
}

func (w *walker) problem(o *Object, sev admin.Severity, code, path, val, msg, hint string) {
	w.diags = append(w.diags, o.Diagnostic(sev, code, path, val, msg, hint))
}

// metadata checks names and labels and fills the object's key.
func (d *decoder) metadata(w *walker, o *Object, info *kindInfo, raw map[string]any) bool {
	o.Key.Kind = info.kind
	m, _ := raw["metadata"].(map[string]any)
	name, _ := m["name"].(string)
	ns, _ := m["namespace"].(string)
	if name == "" {
		w.problem(o, admin.SeverityError, CodeMissingField, "metadata.name", "", "the object has no name", "add metadata: {name: …}")
		return false
	}
	o.Key.Name = name
	switch {
	case info.namespaced && ns == "":
		ns = d.opts.Namespace
		m["namespace"] = ns
	case !info.namespaced && ns != "":
		w.problem(o, admin.SeverityError, CodeInvalidValue, "metadata.namespace", ns, "a "+string(info.kind)+" is in no namespace", "remove metadata.namespace")
		return false
	}
	o.Key.Namespace = ns
	if info.kind != model.KindPod && o.Has("metadata.deletionTimestamp") {
		w.problem(o, admin.SeverityError, CodeUnsupportedField, "metadata.deletionTimestamp", "", "the field is not supported", "use weft delete")
	}
	checkMetadata(w, o, m)
	return !HasErrors(w.diags)
}

// fill decodes the trees into typed values.
func (o *Object) fill(info *kindInfo, raw, canon map[string]any) error {
	data, err := marshal(raw)
	if err != nil {
		return err
	}
	o.Raw, o.Value = data, info.new()
	var meta metav1.ObjectMeta
	if isIstio(o.Value) {
		spec, err := marshal(canon["spec"])
		if err != nil {
			return err
		}
		if canon["spec"] != nil {
			if err := protojson.Unmarshal(spec, o.Value.(proto.Message)); err != nil {
				return fmt.Errorf("decode spec: %w", err)
			}
		}
		metaJSON, err := marshal(raw["metadata"])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(metaJSON, &meta); err != nil {
			return fmt.Errorf("decode metadata: %w", err)
		}
	} else {
		if err := json.Unmarshal(data, o.Value); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		meta = *objectMeta(o.Value)
	}
	o.Meta = model.Meta{Key: o.Key, Labels: meta.Labels, Annotations: meta.Annotations, Created: meta.CreationTimestamp.UTC(), Source: o.File}
	if meta.CreationTimestamp.IsZero() {
		o.Meta.Created = meta.CreationTimestamp.Time
	}
	return nil
}

func objectMeta(v any) *metav1.ObjectMeta {
	if m, ok := v.(metav1.ObjectMetaAccessor); ok {
		if om, ok := m.GetObjectMeta().(*metav1.ObjectMeta); ok {
			return om
		}
	}
	return &metav1.ObjectMeta{}
}

// marshal writes JSON without HTML escapes, so that it stays YAML that reads the same.
func marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// deployment runs the hook for what only the runtime can judge.
func (d *decoder) deployment(w *walker, o *Object) {
	dep, ok := o.Value.(*appsv1.Deployment)
	if !ok {
		return
	}
	checkDeployment(w, o, dep)
	if d.opts.CheckDeployment == nil {
		return
	}
	said := map[string]bool{}
	for i := range w.diags {
		said[w.diags[i].Field] = true
	}
	for _, p := range d.opts.CheckDeployment(dep) {
		if said[p.Field] {
			continue
		}
		sev := admin.SeverityError
		if p.Warning {
			sev = admin.SeverityWarning
		}
		code := p.Code
		if code == "" {
			code = CodeUnsupportedField
		}
		w.problem(o, sev, code, p.Field, p.Value, p.Message, p.Hint)
	}
}
