package gatewayapi

import (
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/control/derive"
	"weft.mesh/weft/model"
)

// Computer keeps the objects by key, computes when one of them has changed,
// and tells what came out differently. It is not safe for concurrent use.
type Computer struct {
	settings Settings
	infra    map[model.Key]Infrastructure
	inputs   *derive.Inputs[held]
	last     *Output
}

// held is one object: the typed value of a kind of the Gateway API, or what other kinds are in the model.
type held struct {
	value  any
	models []model.Object
}

// NewComputer makes an empty one.
func NewComputer(settings Settings) *Computer {
	return &Computer{settings: settings, inputs: derive.NewInputs[held](model.Kind.IsGatewayAPI), last: &Output{Objects: map[model.Key][]model.Object{}, Statuses: map[model.Key]*Status{}}}
}

// Put adds or replaces an object. value is the typed object of a Gateway API
// kind, with its generation; models is what any other kind is in the model.
// Kinds that do not matter here are ignored.
func (c *Computer) Put(key model.Key, value any, models []model.Object) {
	switch {
	case key.Kind.IsGatewayAPI():
		c.inputs.Put(key, held{value: value})
	case matters(key.Kind):
		c.inputs.Put(key, held{models: models})
	}
}

// matters tells whether objects of a kind can change what Gateway API objects mean.
func matters(k model.Kind) bool {
	switch k {
	case model.KindService, model.KindServiceEntry, model.KindNamespace, model.KindSecret, model.KindConfigMap:
		return true
	}
	return false
}

// Delete removes an object.
func (c *Computer) Delete(key model.Key) { c.inputs.Delete(key) }

// SetInfrastructure replaces what is known of deployments of Gateways.
func (c *Computer) SetInfrastructure(infra map[model.Key]Infrastructure) {
	derive.Replace(c.inputs, &c.infra, infra)
}

// Has gives the typed object of a Gateway API kind; nil if there is none.
func (c *Computer) Has(key model.Key) any { return c.inputs.Get(key).value }

// Output is the last result. It must not be changed.
func (c *Computer) Output() *Output { return c.last }

// Update computes if anything has changed, and tells what came out differently, sorted.
// Values that are equal to those before keep their pointers.
func (c *Computer) Update() []derive.Change {
	if !c.inputs.Changed() {
		return nil
	}
	next := &Output{Objects: map[model.Key][]model.Object{}, Statuses: map[model.Key]*Status{}}
	if c.inputs.Leading() {
		next = Compute(c.input())
	}
	derive.Keep(c.last.Statuses, next.Statuses)
	changes := derive.Changes(c.last.Objects, next.Objects)
	c.last = next
	return changes
}

// input gathers the objects, sorted so that the result is the same however they came.
func (c *Computer) input() *Input {
	in := &Input{Settings: c.settings, Namespaces: map[string]map[string]string{}, Infrastructure: c.infra}
	for _, h := range c.inputs.All() {
		in.add(h.value)
		for _, m := range h.models {
			switch m := m.(type) {
			case *model.Service:
				in.Services = append(in.Services, m)
			case *model.Namespace:
				in.Namespaces[m.Name] = m.Labels
			case *model.Secret:
				in.Secrets = append(in.Secrets, m)
			case *model.ConfigMap:
				in.ConfigMaps = append(in.ConfigMaps, m)
			}
		}
	}
	return in
}

func (in *Input) add(value any) {
	switch v := value.(type) {
	case *gw.GatewayClass:
		in.Classes = append(in.Classes, v)
	case *gw.Gateway:
		in.Gateways = append(in.Gateways, v)
	case *gw.ListenerSet:
		in.ListenerSets = append(in.ListenerSets, v)
	case *gw.HTTPRoute:
		in.HTTPRoutes = append(in.HTTPRoutes, v)
	case *gw.GRPCRoute:
		in.GRPCRoutes = append(in.GRPCRoutes, v)
	case *gw.TLSRoute:
		in.TLSRoutes = append(in.TLSRoutes, v)
	case *gw.TCPRoute:
		in.TCPRoutes = append(in.TCPRoutes, v)
	case *gw.ReferenceGrant:
		in.Grants = append(in.Grants, v)
	case *gw.BackendTLSPolicy:
		in.Policies = append(in.Policies, v)
	}
}

// Stamped gives a copy of a Gateway API object with the generation and creation time that a source has for it.
func Stamped(value any, generation int64, created metav1.Time) any {
	v := reflect.ValueOf(value)
	if _, ok := value.(metav1.Object); !ok || v.Kind() != reflect.Pointer {
		return value
	}
	c := reflect.New(v.Elem().Type())
	c.Elem().Set(v.Elem())
	o := c.Interface().(metav1.Object)
	o.SetGeneration(generation)
	if at := o.GetCreationTimestamp(); at.IsZero() {
		o.SetCreationTimestamp(created)
	}
	return c.Interface()
}
