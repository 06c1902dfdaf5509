package gatewayapi

import (
	"slices"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// state is one computation.
type state struct {
	in  *Input
	out *Output

	controllers []string                        // ours
	classes     map[string]string               // controller of each class that is served
	services    map[nn]*model.Service           // Kubernetes Services
	hosts       map[string]*model.Service       // every host; a Service's is never a ServiceEntry's
	grants      map[string][]*gw.ReferenceGrant // by namespace
	secrets     map[nn]*model.Secret
	configMaps  map[nn]*model.ConfigMap
	gateways    map[nn]*gateway
	sets        map[nn]*listenerSet
	order       []*gateway         // oldest first
	used        map[nn]map[nn]bool // gateways whose routes lead to a Service, by the Service
}

// Compute tells what the objects mean.
func Compute(in *Input) *Output {
	s := &state{
		in: in, out: &Output{Objects: map[model.Key][]model.Object{}, Statuses: map[model.Key]*Status{}},
		controllers: in.Settings.Controllers, classes: map[string]string{}, services: map[nn]*model.Service{}, hosts: map[string]*model.Service{},
		grants: map[string][]*gw.ReferenceGrant{}, secrets: map[nn]*model.Secret{}, configMaps: map[nn]*model.ConfigMap{},
		gateways: map[nn]*gateway{}, sets: map[nn]*listenerSet{}, used: map[nn]map[nn]bool{},
	}
	if len(s.controllers) == 0 {
		s.controllers = []string{Controller}
	}
	s.index()
	s.gatewayClasses()
	s.readGateways()
	s.readListenerSets()
	for _, g := range s.order {
		s.judge(g)
	}
	routes := s.readRoutes()
	s.attach(routes)
	s.mesh(routes)
	for _, g := range s.order {
		s.emit(g)
		s.gatewayStatus(g)
	}
	for _, r := range routes {
		s.routeStatus(r)
	}
	s.backendTLS()
	slices.SortFunc(s.out.Deployments, func(a, b Deployment) int { return model.CompareNames(a.Gateway, b.Gateway) })
	return s.out
}

func (s *state) index() {
	list := slices.Clone(s.in.Services)
	slices.SortFunc(list, func(a, b *model.Service) int { return model.CompareNames(a.Key, b.Key) })
	for _, svc := range list {
		if svc.Kind == model.KindService {
			s.services[nn{svc.Namespace, svc.Name}] = svc
		}
		if first := s.hosts[svc.Host]; first == nil || first.Kind != model.KindService && svc.Kind == model.KindService {
			s.hosts[svc.Host] = svc
		}
	}
	for _, g := range s.in.Grants {
		s.grants[g.Namespace] = append(s.grants[g.Namespace], g)
	}
	for _, x := range s.in.Secrets {
		s.secrets[nn{x.Namespace, x.Name}] = x
	}
	for _, x := range s.in.ConfigMaps {
		s.configMaps[nn{x.Namespace, x.Name}] = x
	}
}

// gatewayClasses accepts the classes of our controllers.
func (s *state) gatewayClasses() {
	for _, name := range s.in.Settings.Classes {
		s.classes[name] = s.controllers[0]
	}
	for _, c := range s.in.Classes {
		controller := string(c.Spec.ControllerName)
		if !slices.Contains(s.controllers, controller) {
			delete(s.classes, c.Name) // another's object goes before a class that is there without one
			continue
		}
		v := verdict{}
		if c.Spec.ParametersRef != nil {
			v = no(gw.GatewayClassReasonInvalidParameters, "spec.parametersRef is not supported: give each Gateway infrastructure.parametersRef")
		}
		s.classes[c.Name] = controller
		st := &gw.GatewayClassStatus{SupportedFeatures: Features()}
		st.Conditions = append(st.Conditions, condition(gw.GatewayClassConditionStatusAccepted, v, gw.GatewayClassReasonAccepted, "the class is served", c.Generation))
		s.out.Statuses[keyOf(model.KindGatewayClass, c)] = &Status{Class: st}
	}
}

func (s *state) put(kind model.Kind, ns, name string, o model.Object) {
	k := model.Key{Kind: kind, Namespace: ns, Name: name}
	s.out.Objects[k] = append(s.out.Objects[k], o)
}
