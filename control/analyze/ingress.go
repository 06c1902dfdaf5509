package analyze

import (
	"weft.mesh/weft/control/ingress"
	"weft.mesh/weft/model"
)

// checkIngresses says what is wrong with the Ingresses that are ours, all of them seen together.
func (s *set) checkIngresses() {
	settings := ingress.SettingsOf(s.mesh)
	in := &ingress.Input{Settings: settings}
	byKey := map[model.Key]*item{}
	for _, it := range s.items {
		for _, m := range it.models {
			switch m := m.(type) {
			case *model.Ingress:
				x := *m
				x.Created = it.obj.Meta.Created
				in.Ingresses = append(in.Ingresses, &x)
				byKey[x.Meta.Key] = it
			case *model.IngressClass:
				in.Classes = append(in.Classes, m)
			case *model.Service:
				in.Services = append(in.Services, m)
			case *model.Secret:
				in.Secrets = append(in.Secrets, m)
			}
		}
	}
	if len(in.Ingresses) == 0 {
		return
	}
	out := ingress.Compute(in)
	for _, f := range out.Findings {
		report := s.warn
		if f.Error {
			report = s.fail
		}
		report(byKey[f.Key], f.Code, f.Field, f.Value, f.Message, f.Hint)
	}
	for _, k := range out.Served {
		s.checkSelector(byKey[k], "spec", settings.Selector, settings.WorkloadNamespace, "no pod of the ingress gateway is there, so nothing serves the Ingress")
	}
}
