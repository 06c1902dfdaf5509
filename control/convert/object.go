package convert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

// SourceStore is the Source (and File) of objects that come from the embedded store.
const SourceStore = "store"

// Options say how Decode treats a file. The zero value is for ordinary user files.
type Options struct {
	// Namespace is given to namespaced objects that name none. Default "default".
	Namespace string
	// Pods turns the trusted pods directory of the local runtime on: Pod is the only kind allowed there,
	// and it is refused everywhere else.
	Pods bool
	// CheckDeployment, if set, checks what a Deployment asks of the runtime (pod template, strategy).
	// Its field paths start at the object ("spec.template.spec.containers[0].image").
	CheckDeployment func(*appsv1.Deployment) []FieldProblem
}

// FieldProblem is what CheckDeployment finds wrong with one field.
type FieldProblem struct {
	Field   string // path from the object: "spec.template.spec.hostNetwork"
	Value   string // what was found
	Message string // what is wrong
	Hint    string // what would be right
	Warning bool   // false: an error
	Code    string // default CodeUnsupportedField
}

// Object is one decoded configuration object.
type Object struct {
	Key        model.Key
	APIVersion string // as written: networking.istio.io/v1beta1
	File       string // the file it came from, or SourceStore
	Meta       model.Meta
	// Raw is the object as JSON, with the namespace filled in and without what only a server writes.
	Raw json.RawMessage
	// Value is the spec message of an istio.io/api kind, or the whole object of a k8s.io/api kind.
	Value any

	pos      positions
	unplaced bool // the positions mean nothing to a person
}

// Position returns where the field was written (1-based). A path that was not
// written gives the position of its nearest parent; an object from the store
// has no positions and gives 0, 0.
func (o *Object) Position(path string) (line, col int) {
	if o.unplaced {
		return 0, 0
	}
	p := o.pos.find(path)
	return p.line, p.col
}

// Has tells whether the field was written.
func (o *Object) Has(path string) bool { _, ok := o.pos.at[path]; return ok }

// Diagnostic makes a diagnostic about a field of the object, with its position.
func (o *Object) Diagnostic(sev admin.Severity, code, path, value, message, hint string) admin.Diagnostic {
	line, col := o.Position(path)
	return admin.Diagnostic{
		Severity: sev, Code: code, File: o.File, Line: line, Column: col, Object: o.Key.String(),
		Field: path, Value: clip(value), Message: message, Hint: hint,
	}
}

// Admin returns the object as the control socket shows it, without the content of Secrets.
func (o *Object) Admin(revision uint64) admin.Object {
	return admin.Object{
		APIVersion: o.APIVersion, Kind: string(o.Key.Kind), Namespace: o.Key.Namespace, Name: o.Key.Name,
		Source: o.File, Revision: revision, Raw: o.Shown(),
	}
}

// String names the object and its file: what it holds may be secret, and belongs in no log.
func (o Object) String() string { return o.Key.String() + " (" + o.File + ")" }

// GoString is String.
func (o Object) GoString() string { return o.String() }

type position struct{ line, col int }

// positions maps field paths to places in the text.
type positions struct{ at map[string]position }

func (p positions) find(path string) position {
	for {
		if at, ok := p.at[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return p.at[""]
		}
		path = path[:cut]
	}
}

// HasErrors tells whether any diagnostic is an error.
func HasErrors(ds []admin.Diagnostic) bool {
	for i := range ds {
		if ds[i].Severity == admin.SeverityError {
			return true
		}
	}
	return false
}

// Sort orders diagnostics by file, line, column, object, field and code, and removes exact repetitions.
func Sort(ds []admin.Diagnostic) []admin.Diagnostic {
	sort.SliceStable(ds, func(i, j int) bool { return less(&ds[i], &ds[j]) })
	out := ds[:0]
	for i := range ds {
		if i == 0 || ds[i] != ds[i-1] {
			out = append(out, ds[i])
		}
	}
	return out
}

func less(a, b *admin.Diagnostic) bool {
	switch {
	case a.File != b.File:
		return a.File < b.File
	case a.Line != b.Line:
		return a.Line < b.Line
	case a.Column != b.Column:
		return a.Column < b.Column
	case a.Object != b.Object:
		return a.Object < b.Object
	case a.Field != b.Field:
		return a.Field < b.Field
	case a.Code != b.Code:
		return a.Code < b.Code
	}
	return a.Message < b.Message
}

// clip keeps values in messages short.
func clip(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

func quoteList(names []string) string { return strings.Join(names, ", ") }

// oneLine writes a list for a message: "a, b and c".
func oneLine(names []string) string {
	switch len(names) {
	case 0:
		return "none"
	case 1:
		return names[0]
	}
	return fmt.Sprintf("%s and %s", strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}

// ValueAt gives the text of a scalar field as JSON has it, "" if it was not written.
func (o *Object) ValueAt(path string) string {
	var cur any
	dec := json.NewDecoder(bytes.NewReader(o.Raw))
	dec.UseNumber()
	if dec.Decode(&cur) != nil {
		return ""
	}
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		switch v := cur.(type) {
		case map[string]any:
			cur = v[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(v) {
				return ""
			}
			cur = v[i]
		default:
			return ""
		}
	}
	if cur == nil {
		return ""
	}
	return fmt.Sprint(cur)
}

// Stored returns the object as the store gives it: without the places of a
// file, with the store as its source and the time when it was first stored.
func (o Object) Stored(created time.Time) Object {
	o.File, o.unplaced = SourceStore, true
	o.Meta.Source = SourceStore
	if o.Meta.Created.IsZero() {
		o.Meta.Created = created
	}
	return o
}
