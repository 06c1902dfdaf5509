package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// MaxManifest bounds a file in bytes.
const MaxManifest = 16 << 20

// templates are where workloads have their pod.
var templatePaths = map[string][]string{
	"Pod": {}, "Deployment": {"spec", "template"}, "StatefulSet": {"spec", "template"}, "DaemonSet": {"spec", "template"}, "ReplicaSet": {"spec", "template"},
	"ReplicationController": {"spec", "template"}, "Job": {"spec", "template"}, "CronJob": {"spec", "jobTemplate", "spec", "template"},
}

// Outcome is what became of one workload of a manifest.
type Outcome struct {
	Kind, Namespace, Name string
	*Result
}

// Manifest puts proxies into the workloads of a file: YAML or JSON documents, Lists among them. Documents without a workload that
// changes stay byte for byte; in the others comments stay. namespace is for objects that name none.
func (c *Config) Manifest(text []byte, namespace string) (out []byte, all []Outcome, err error) {
	if len(text) > MaxManifest {
		return nil, nil, fmt.Errorf("%d bytes: at most %d", len(text), MaxManifest)
	}
	var b bytes.Buffer
	line := 1
	for _, chunk := range documents(text) {
		done, list, err := c.document(chunk, namespace)
		if err != nil {
			return nil, nil, fmt.Errorf("document at line %d: %w", line, err)
		}
		b.Write(done)
		all = append(all, list...)
		line += bytes.Count(chunk, []byte{'\n'})
	}
	return b.Bytes(), all, nil
}

// documents cuts a file before its "---" lines.
func documents(text []byte) [][]byte {
	var out [][]byte
	start := 0
	for at := 0; at < len(text); {
		next := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if l := text[at:next]; at > start && bytes.HasPrefix(l, []byte("---")) && (len(l) == 3 || strings.IndexByte(" \t\r\n", l[3]) >= 0) {
			out = append(out, text[start:at])
			start = at
		}
		at = next
	}
	return append(out, text[start:])
}

func (c *Config) document(chunk []byte, namespace string) ([]byte, []Outcome, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(chunk, &doc); err != nil {
		return nil, nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return chunk, nil, nil
	}
	list, err := c.object(doc.Content[0], namespace)
	if err != nil || !slices.ContainsFunc(list, func(o Outcome) bool { return o.Injected }) {
		return chunk, list, err
	}
	var b bytes.Buffer
	if bytes.HasPrefix(chunk, []byte("---")) {
		b.WriteString("---\n")
	}
	if json.Valid(bytes.TrimSpace(chunk)) {
		var v any
		if err := doc.Decode(&v); err != nil {
			return nil, nil, err
		}
		js, err := json.MarshalIndent(v, "", "  ")
		return append(js, '\n'), list, err
	}
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	err = errors.Join(e.Encode(&doc), e.Close())
	return b.Bytes(), list, err
}

// object injects into one object, or into the items of a List.
func (c *Config) object(n *yaml.Node, namespace string) ([]Outcome, error) {
	kind := scalar(child(n, "kind"))
	if items := child(n, "items"); strings.HasSuffix(kind, "List") && items != nil {
		var all []Outcome
		for i := range items.Content {
			list, err := c.object(items.Content[i], namespace)
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
		return all, nil
	}
	path, ok := templatePaths[kind]
	if !ok {
		return nil, nil
	}
	left := maxNodes
	plain, err := expand(n, &left, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	*n = *plain
	meta := child(n, "metadata")
	o := Outcome{Kind: kind, Name: or(scalar(child(meta, "name")), scalar(child(meta, "generateName"))), Namespace: or(scalar(child(meta, "namespace")), namespace)}
	pod := n
	for _, k := range path {
		if pod = child(pod, k); pod == nil {
			return nil, fmt.Errorf("%s %s: there is no %s", kind, o.Name, strings.Join(path, "."))
		}
	}
	y, err := yaml.Marshal(pod)
	if err != nil {
		return nil, err
	}
	js, err := sigsyaml.YAMLToJSON(y) // as kubectl reads it
	if err != nil {
		return nil, err
	}
	owner := Owner{APIVersion: scalar(child(n, "apiVersion")), Kind: kind, Name: o.Name}
	if o.Result, err = c.inject(js, o.Namespace, owner); err != nil {
		return nil, fmt.Errorf("%s %s/%s: %w", kind, o.Namespace, o.Name, err)
	}
	return []Outcome{o}, patchNode(pod, o.Patch)
}

func scalar(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// child is the value of a key.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// Bounds of an object with its aliases expanded.
const (
	maxNodes = 100_000
	maxDepth = 64
)

// expand replaces every alias by a copy of what it stands for, so that a change in one place changes nothing elsewhere.
func expand(n *yaml.Node, left *int, depth int) (*yaml.Node, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if *left--; *left < 0 || depth > maxDepth {
		return nil, fmt.Errorf("more than %d nodes or %d levels with its aliases expanded", maxNodes, maxDepth)
	}
	out := *n
	out.Anchor = ""
	out.Content = make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		var err error
		if out.Content[i], err = expand(c, left, depth+1); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// patchNode applies a patch of ours to YAML.
func patchNode(root *yaml.Node, patch []byte) error {
	if patch == nil {
		return nil
	}
	var ops []struct {
		Op    string          `json:"op"`
		Path  string          `json:"path"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(patch, &ops); err != nil {
		return err
	}
	for _, op := range ops {
		keys := strings.Split(op.Path, "/")[1:]
		at := root
		for _, k := range keys[:len(keys)-1] {
			if at = step(at, unescape(k)); at == nil {
				return fmt.Errorf("patch: there is no %s", op.Path)
			}
		}
		var value *yaml.Node
		if op.Op != "remove" {
			var doc yaml.Node
			if err := yaml.Unmarshal(op.Value, &doc); err != nil {
				return err
			}
			value = block(doc.Content[0])
		}
		if err := change(at, unescape(keys[len(keys)-1]), op.Op, value); err != nil {
			return fmt.Errorf("patch: %s %s: %w", op.Op, op.Path, err)
		}
	}
	return nil
}

func unescape(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
}

func step(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return child(n, key)
	}
	i, err := strconv.Atoi(key)
	if err != nil || i >= len(n.Content) {
		return nil
	}
	return n.Content[i]
}

// block gives a node that was read from JSON the style of YAML that people write.
func block(n *yaml.Node) *yaml.Node {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.SetString(n.Value) // quoted where it must be
		if n.Style == 0 && needsQuotes(n.Value) {
			n.Style = yaml.SingleQuotedStyle
		}
	}
	for _, c := range n.Content {
		block(c)
	}
	return n
}

// needsQuotes tells whether readers of YAML 1.1 would take a text for something else.
func needsQuotes(s string) bool {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off":
		return true
	}
	return false
}

func change(at *yaml.Node, key, op string, value *yaml.Node) error {
	if at.Kind == yaml.SequenceNode {
		if key == "-" {
			at.Content = append(at.Content, value)
			return nil
		}
		i, err := strconv.Atoi(key)
		switch {
		case err != nil || i > len(at.Content) || op != "add" && i == len(at.Content):
			return errors.New("there is no such item")
		case op == "add":
			at.Content = slices.Insert(at.Content, i, value)
		case op == "remove":
			at.Content = slices.Delete(at.Content, i, i+1)
		default:
			at.Content[i] = value
		}
		return nil
	}
	if at.Kind != yaml.MappingNode {
		return errors.New("it is neither a mapping nor a list")
	}
	at.Style = 0 // more fits on lines of its own
	for i := 0; i+1 < len(at.Content); i += 2 {
		if at.Content[i].Value != key {
			continue
		}
		if op == "remove" {
			at.Content = slices.Delete(at.Content, i, i+2)
		} else {
			at.Content[i+1] = value
		}
		return nil
	}
	if op == "add" {
		k := &yaml.Node{}
		k.SetString(key)
		at.Content = append(at.Content, k, value)
		return nil
	}
	return errors.New("there is no such field")
}
