package ingress

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"weft.mesh/weft/model"
)

// Computer keeps the objects by key, computes when one of them has changed,
// and tells what came out differently. It is not safe for concurrent use.
type Computer struct {
	settings  Settings
	objects   map[model.Key]model.Object
	ingresses int
	dirty     bool
	last      *Output
}

// NewComputer makes an empty one.
func NewComputer(settings Settings) *Computer {
	return &Computer{settings: settings, objects: map[model.Key]model.Object{}, last: &Output{Objects: map[model.Key][]model.Object{}}}
}

// Put adds or replaces an object by what it is in the model. Kinds that do not matter here are ignored.
func (c *Computer) Put(key model.Key, models []model.Object) {
	switch key.Kind {
	case model.KindIngress, model.KindIngressClass, model.KindService, model.KindSecret:
	default:
		return
	}
	if len(models) != 1 {
		c.Delete(key)
		return
	}
	was := c.objects[key]
	if was != nil && reflect.DeepEqual(was, models[0]) {
		return
	}
	if was == nil && key.Kind == model.KindIngress {
		c.ingresses++
	}
	c.objects[key], c.dirty = models[0], true
}

// Delete removes an object.
func (c *Computer) Delete(key model.Key) {
	if c.objects[key] == nil {
		return
	}
	delete(c.objects, key)
	if key.Kind == model.KindIngress {
		c.ingresses--
	}
	c.dirty = true
}

// SetSettings replaces them.
func (c *Computer) SetSettings(s Settings) {
	if !reflect.DeepEqual(c.settings, s) {
		c.settings, c.dirty = s, true
	}
}

// Output is the last result. It must not be changed.
func (c *Computer) Output() *Output { return c.last }

// Change is what came out differently for a key of the World; Objects is nil if nothing is there any more.
type Change struct {
	Key     model.Key
	Objects []model.Object
}

// Update computes if anything has changed, and tells what came out differently, sorted.
// Values that are equal to those before keep their pointers.
func (c *Computer) Update() []Change {
	if !c.dirty {
		return nil
	}
	c.dirty = false
	next := &Output{Objects: map[model.Key][]model.Object{}}
	if c.ingresses > 0 {
		next = Compute(c.input())
	}
	var out []Change
	for k, objs := range next.Objects {
		if was, ok := c.last.Objects[k]; ok && reflect.DeepEqual(was, objs) {
			next.Objects[k] = was
			continue
		}
		out = append(out, Change{k, objs})
	}
	for k := range c.last.Objects {
		if _, ok := next.Objects[k]; !ok {
			out = append(out, Change{Key: k})
		}
	}
	c.last = next
	slices.SortFunc(out, func(a, b Change) int { return compareAll(a.Key, b.Key) })
	return out
}

func compareAll(a, b model.Key) int {
	return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), compareKeys(a, b))
}

// input gathers the objects, sorted so that the result is the same however they came.
func (c *Computer) input() *Input {
	in := &Input{Settings: c.settings}
	for _, k := range slices.SortedFunc(maps.Keys(c.objects), compareAll) {
		switch o := c.objects[k].(type) {
		case *model.Ingress:
			in.Ingresses = append(in.Ingresses, o)
		case *model.IngressClass:
			in.Classes = append(in.Classes, o)
		case *model.Service:
			in.Services = append(in.Services, o)
		case *model.Secret:
			in.Secrets = append(in.Secrets, o)
		}
	}
	return in
}
