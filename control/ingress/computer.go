package ingress

import (
	"weft.mesh/weft/control/derive"
	"weft.mesh/weft/model"
)

// Computer keeps the objects by key, computes when one of them has changed,
// and tells what came out differently. It is not safe for concurrent use.
type Computer struct {
	settings Settings
	inputs   *derive.Inputs[model.Object]
	last     *Output
}

// NewComputer makes an empty one.
func NewComputer(settings Settings) *Computer {
	return &Computer{settings: settings, last: &Output{Objects: map[model.Key][]model.Object{}},
		inputs: derive.NewInputs[model.Object](func(k model.Kind) bool { return k == model.KindIngress })}
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
	c.inputs.Put(key, models[0])
}

// Delete removes an object.
func (c *Computer) Delete(key model.Key) { c.inputs.Delete(key) }

// SetSettings replaces them.
func (c *Computer) SetSettings(s Settings) { derive.Replace(c.inputs, &c.settings, s) }

// Output is the last result. It must not be changed.
func (c *Computer) Output() *Output { return c.last }

// Update computes if anything has changed, and tells what came out differently, sorted.
// Values that are equal to those before keep their pointers.
func (c *Computer) Update() []derive.Change {
	if !c.inputs.Changed() {
		return nil
	}
	next := &Output{Objects: map[model.Key][]model.Object{}}
	if c.inputs.Leading() {
		next = Compute(c.input())
	}
	changes := derive.Changes(c.last.Objects, next.Objects)
	c.last = next
	return changes
}

// input gathers the objects, sorted so that the result is the same however they came.
func (c *Computer) input() *Input {
	in := &Input{Settings: c.settings}
	for _, o := range c.inputs.All() {
		switch o := o.(type) {
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
