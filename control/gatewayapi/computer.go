package gatewayapi

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// Computer keeps the objects by key, computes when one of them has changed,
// and tells what came out differently. It is not safe for concurrent use.
type Computer struct {
	settings Settings
	objects  map[model.Key]held
	infra    map[model.Key]Infrastructure
	api      int // how many objects of the Gateway API are there
	dirty    bool
	last     *Output
}

// held is one object: the typed value of a kind of the Gateway API, or what other kinds are in the model.
type held struct {
	value  any
	models []model.Object
}

// NewComputer makes an empty one.
func NewComputer(settings Settings) *Computer {
	return &Computer{settings: settings, objects: map[model.Key]held{}, last: &Output{Objects: map[model.Key][]model.Object{}, Statuses: map[model.Key]*Status{}}}
}

// Put adds or replaces an object. value is the typed object of a Gateway API
// kind, with its generation; models is what any other kind is in the model.
// Kinds that do not matter here are ignored.
func (c *Computer) Put(key model.Key, value any, models []model.Object) {
	h := held{}
	switch {
	case key.Kind.IsGatewayAPI():
		h.value = value
	case matters(key.Kind):
		h.models = models
	default:
		return
	}
	was, had := c.objects[key]
	if had && reflect.DeepEqual(was, h) {
		return
	}
	if !had && key.Kind.IsGatewayAPI() {
		c.api++
	}
	c.objects[key] = h
	c.dirty = true
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
func (c *Computer) Delete(key model.Key) {
	if _, had := c.objects[key]; !had {
		return
	}
	delete(c.objects, key)
	if key.Kind.IsGatewayAPI() {
		c.api--
	}
	c.dirty = true
}

// SetInfrastructure replaces what is known of deployments of Gateways.
func (c *Computer) SetInfrastructure(infra map[model.Key]Infrastructure) {
	if !reflect.DeepEqual(c.infra, infra) {
		c.infra, c.dirty = infra, true
	}
}

// Has gives the typed object of a Gateway API kind; nil if there is none.
func (c *Computer) Has(key model.Key) any { return c.objects[key].value }

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
	next := &Output{Objects: map[model.Key][]model.Object{}, Statuses: map[model.Key]*Status{}}
	if c.api > 0 {
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
	for k, st := range next.Statuses {
		if was, ok := c.last.Statuses[k]; ok && reflect.DeepEqual(was, st) {
			next.Statuses[k] = was
		}
	}
	c.last = next
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(strings.Compare(string(a.Key.Kind), string(b.Key.Kind)), compareKeys(a.Key, b.Key))
	})
	return out
}

// input gathers the objects, sorted so that the result is the same however they came.
func (c *Computer) input() *Input {
	in := &Input{Settings: c.settings, Namespaces: map[string]map[string]string{}, Infrastructure: c.infra}
	keys := slices.SortedFunc(maps.Keys(c.objects), func(a, b model.Key) int {
		return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), compareKeys(a, b))
	})
	for _, k := range keys {
		h := c.objects[k]
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
