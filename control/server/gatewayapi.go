package server

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
)

// LocalGatewayAPI is how the Gateway API works without Kubernetes: the ingress
// gateway's pods (label istio: ingressgateway) serve every Gateway of the classes
// weft and istio, which need no GatewayClass, and nothing is deployed. A listener's port is mapped
// to the pods' by the ingress gateway's Service, as a server's port of Istio's Gateway is.
func LocalGatewayAPI() gatewayapi.Settings {
	return gatewayapi.Settings{
		Controllers: []string{gatewayapi.Controller, gatewayapi.IstioController},
		Classes:     []string{gatewayapi.ClassWeft, gatewayapi.ClassIstio},
		Selector:    map[string]string{"istio": "ingressgateway"},
		Addresses:   []string{localAddress},
	}
}

// localAddress is where gateways are reached without Kubernetes.
const localAddress = "localhost"

// gatewayAPI feeds what the Gateway API objects and the Ingresses mean into the
// World, beside the objects' own values, and keeps their statuses.
type gatewayAPI struct {
	mesh    model.Mesh
	worlds  *snapshot.Store
	changed *signal // Output is another
	// generation tells an object's metadata.generation; nil: objects have none.
	generation  func(model.Key) int64
	controllers []string
	now         func() time.Time

	mu       sync.Mutex // protects the following, and the order in which changes reach the World
	computer *gatewayapi.Computer
	ingress  *ingresses
	statuses map[model.Key]*gatewayapi.Status // with the times of transition
}

func newGatewayAPI(set Settings, worlds *snapshot.Store) *gatewayAPI {
	settings := LocalGatewayAPI()
	if set.GatewayAPI != nil {
		settings = *set.GatewayAPI
	}
	settings.Domain = set.Mesh.Domain
	if len(settings.Controllers) == 0 {
		settings.Controllers = []string{gatewayapi.Controller}
	}
	return &gatewayAPI{mesh: set.Mesh, worlds: worlds, changed: newSignal(), generation: set.Generation, controllers: settings.Controllers, now: time.Now,
		computer: gatewayapi.NewComputer(settings), ingress: newIngresses(set), statuses: map[model.Key]*gatewayapi.Status{}}
}

// put takes an object with its values. Objects of the Gateway API come in also
// if ToModel refuses a part of them: they get a condition.
func (g *gatewayAPI) put(o *convert.Object, values []model.Object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	value := o.Value
	if o.Key.Kind.IsGatewayAPI() {
		generation := int64(0)
		if g.generation != nil {
			generation = g.generation(o.Key)
		}
		value = gatewayapi.Stamped(o.Value, generation, metav1.NewTime(o.Meta.Created))
	}
	g.computer.Put(o.Key, value, values)
	g.ingress.Put(o.Key, values)
}

func (g *gatewayAPI) remove(k model.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.computer.Delete(k)
	g.ingress.Delete(k)
	delete(g.statuses, k)
}

// apply hands changes to the World together with what they change in the meaning of the Gateway API objects and the Ingresses.
func (g *gatewayAPI) apply(changes ...snapshot.Change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.computer.Output()
	for _, ch := range g.computer.Update() {
		changes = append(changes, snapshot.Change{Key: ch.Key, Objects: ch.Objects})
	}
	changes = append(changes, g.ingress.update()...)
	if len(changes) > 0 {
		g.worlds.Apply(changes...)
	}
	if g.computer.Output() != before {
		g.keepStatuses()
		g.changed.fire()
	}
}

// keepStatuses gives the new statuses the times at which their conditions changed.
func (g *gatewayAPI) keepStatuses() {
	ours := func(c gw.GatewayController) bool { return slices.Contains(g.controllers, string(c)) }
	next := make(map[model.Key]*gatewayapi.Status, len(g.statuses))
	for k, st := range g.computer.Output().Statuses {
		merged := gatewayapi.Merge(g.statuses[k], st, ours, g.now())
		if was := g.statuses[k]; was != nil && reflect.DeepEqual(was, merged) {
			merged = was
		}
		next[k] = merged
	}
	g.statuses = next
}

// show adds an object's status, as an API server would have it.
func (g *gatewayAPI) show(k model.Key, raw json.RawMessage) json.RawMessage {
	if !k.Kind.IsGatewayAPI() && k.Kind != model.KindIngress {
		return raw
	}
	g.mu.Lock()
	var status any
	if st := g.statuses[k]; st != nil {
		status = st.Value()
	} else if s := g.ingress.status(k); s != nil {
		status = s
	}
	g.mu.Unlock()
	if status == nil {
		return raw
	}
	var o map[string]json.RawMessage
	text, err := json.Marshal(status)
	if err != nil || json.Unmarshal(raw, &o) != nil {
		return raw
	}
	o["status"] = text
	out, err := json.Marshal(o)
	if err != nil {
		return raw
	}
	return out
}

// problems lists conditions that say that an object has not the effect that it asks for, and what is wrong with Ingresses.
func (g *gatewayAPI) problems() []admin.Diagnostic {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []admin.Diagnostic
	for _, k := range slices.SortedFunc(maps.Keys(g.statuses), func(a, b model.Key) int { return strings.Compare(a.String(), b.String()) }) {
		for _, c := range gatewayapi.Faults(g.statuses[k]) {
			out = append(out, admin.Diagnostic{Severity: admin.SeverityWarning, Code: gatewayapi.CodeCondition, Object: k.String(), Field: "status",
				Value: c.Type + "=" + string(c.Status) + " " + c.Reason, Message: c.Message, Hint: gatewayapi.Hint(c)})
		}
	}
	return append(out, g.ingress.problems()...)
}

// GatewayAPI is what the Gateway API objects mean now: statuses to write and
// deployments to have. Nothing of it may be changed.
func (s *Server) GatewayAPI() *gatewayapi.Output {
	g := s.config.gatewayAPI
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.computer.Output()
}

// GatewayAPIChanged is closed when GatewayAPI gives something else.
func (s *Server) GatewayAPIChanged() <-chan struct{} { return s.config.gatewayAPI.changed.next() }

// SetGatewayInfrastructure says what is deployed for Gateways, by their keys; statuses follow from it.
func (s *Server) SetGatewayInfrastructure(infra map[model.Key]gatewayapi.Infrastructure) {
	g := s.config.gatewayAPI
	g.mu.Lock()
	g.computer.SetInfrastructure(infra)
	g.mu.Unlock()
	g.apply()
}
