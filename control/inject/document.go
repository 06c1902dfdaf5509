package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// document is a pod as the API server sent it: what we do not know of it stays.
type document map[string]any

func decode(b []byte) (document, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var out document
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("pod: %w", err)
	}
	return out, nil
}

func (d document) encode() ([]byte, error) { return json.Marshal(map[string]any(d)) }

// object is a field that is an object; it is made if it is not there.
func (d document) object(field string) map[string]any {
	m, ok := d[field].(map[string]any)
	if !ok {
		m = map[string]any{}
		d[field] = m
	}
	return m
}

// containers are those of a list of the pod's spec.
func (d document) containers(list string) (out []map[string]any) {
	items, _ := d.object("spec")[list].([]any)
	for _, x := range items {
		if m, ok := x.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// set replaces a list; an empty one goes.
func (d document) set(list string, cs []map[string]any) {
	if len(cs) == 0 {
		delete(d.object("spec"), list)
		return
	}
	items := make([]any, len(cs))
	for i, c := range cs {
		items[i] = c
	}
	d.object("spec")[list] = items
}

// take removes the container of that name from both lists and returns it, nil if there is none.
func (d document) take(name string) (taken map[string]any) {
	for _, list := range []string{"containers", "initContainers"} {
		cs := d.containers(list)
		if i := index(cs, name); i >= 0 {
			taken = cs[i]
			d.set(list, slices.Delete(cs, i, i+1))
		}
	}
	return taken
}

// find is where the container of that name is; "" if nowhere.
func (d document) find(name string) (list string, i int) {
	for _, list := range []string{"containers", "initContainers"} {
		if i := index(d.containers(list), name); i >= 0 {
			return list, i
		}
	}
	return "", -1
}

// move puts the container of that name at the head of its list, or at its end.
func (d document) move(list, name string, first bool) {
	cs := d.containers(list)
	i := index(cs, name)
	if i < 0 {
		return
	}
	c := cs[i]
	cs = slices.Delete(cs, i, i+1)
	if first {
		cs = slices.Insert(cs, 0, c)
	} else {
		cs = append(cs, c)
	}
	d.set(list, cs)
}

func index(cs []map[string]any, name string) int {
	return slices.IndexFunc(cs, func(c map[string]any) bool { return c["name"] == name })
}

// merge lays part over the document by Kubernetes' rules: lists of named things are merged by name.
func (d document) merge(part []byte) (document, error) {
	b, err := d.encode()
	if err != nil {
		return nil, err
	}
	merged, err := strategicpatch.StrategicMergePatch(b, part, corev1.Pod{})
	if err != nil {
		return nil, err
	}
	return decode(merged)
}

// mergeContainer lays a user's container over the one of the same name.
func (d document) mergeContainer(user map[string]any) error {
	name, _ := user["name"].(string)
	list, i := d.find(name)
	if i < 0 { // no template made one: it is the user's own
		d.set("containers", append(d.containers("containers"), user))
		return nil
	}
	if user["image"] == "auto" || user["image"] == "" {
		delete(user, "image")
		delete(user, "imagePullPolicy") // the API server's default for an image without a tag: not what the user said
	}
	if list == "initContainers" { // a native sidecar is one whatever the user wrote
		delete(user, "restartPolicy")
	}
	cs := d.containers(list)
	base, err := json.Marshal(cs[i])
	if err != nil {
		return err
	}
	over, err := json.Marshal(user)
	if err != nil {
		return err
	}
	merged, err := strategicpatch.StrategicMergePatch(base, over, corev1.Container{})
	if err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	if cs[i], err = decode(merged); err != nil {
		return err
	}
	d.set(list, cs)
	return nil
}
