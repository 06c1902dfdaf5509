package server

import (
	"log/slog"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/ingress"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
)

// ingresses are the Ingresses and what they mean. It is part of gatewayAPI, whose lock protects it.
type ingresses struct {
	*ingress.Computer
	settings model.IngressSettings
	local    bool
	known    bool                     // all sources have said what they hold
	said     map[ingress.Finding]bool // in the log
	log      *slog.Logger
}

func newIngresses(set Settings) *ingresses {
	return &ingresses{Computer: ingress.NewComputer(ingress.SettingsOf(snapshot.Defaults(set.Mesh))), settings: set.Mesh.Ingress, local: !set.Mesh.EndpointSlices,
		said: map[ingress.Finding]bool{}, log: set.Log}
}

// update computes what has changed.
func (x *ingresses) update() []snapshot.Change {
	before := x.Output()
	var out []snapshot.Change
	for _, ch := range x.Update() {
		out = append(out, snapshot.Change{Key: ch.Key, Objects: ch.Objects})
	}
	if x.Output() != before {
		x.say()
	}
	return out
}

// say logs what is wrong, each thing once: an Ingress has no conditions to tell it. While
// sources are being read, a Service is missing that is only not read yet.
func (x *ingresses) say() {
	if !x.known {
		return
	}
	said := make(map[ingress.Finding]bool, len(x.Output().Findings))
	for _, f := range x.Output().Findings {
		if said[f] = true; !x.said[f] {
			x.log.Warn("config: an Ingress has not all of its effect", "object", f.Key.String(), "field", f.Field, "value", f.Value, "reason", f.Message, "fix", f.Hint)
		}
	}
	x.said = said
}

// status is that of an Ingress that is served in local mode; nil of another. On Kubernetes the API server has it.
func (x *ingresses) status(k model.Key) *networkingv1.IngressStatus {
	if !x.local || !slices.Contains(x.Output().Served, k) {
		return nil
	}
	return &networkingv1.IngressStatus{LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: []networkingv1.IngressLoadBalancerIngress{{Hostname: localAddress}}}}
}

// problems lists what is wrong with Ingresses.
func (x *ingresses) problems() []admin.Diagnostic {
	var out []admin.Diagnostic
	for _, f := range x.Output().Findings {
		out = append(out, admin.Diagnostic{Severity: admin.SeverityWarning, Code: f.Code, Object: f.Key.String(), Field: f.Field, Value: f.Value, Message: f.Message, Hint: f.Hint})
	}
	return out
}

// Ingresses lists the Ingresses that are served, sorted: their status is ours.
func (s *Server) Ingresses() []model.Key {
	g := s.config.gatewayAPI
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ingress.Output().Served
}

// sourcesRead tells that all sources have said what they hold.
func (g *gatewayAPI) sourcesRead() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ingress.known = true
	g.ingress.say()
}

func (g *gatewayAPI) ingressSettings() model.IngressSettings {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ingress.settings
}

// setIngress takes other mesh-wide settings.
func (g *gatewayAPI) setIngress(mesh model.Mesh) {
	g.mu.Lock()
	g.ingress.settings = mesh.Ingress
	g.ingress.SetSettings(ingress.SettingsOf(mesh))
	g.mu.Unlock()
	g.apply()
}
