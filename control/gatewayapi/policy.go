package gatewayapi

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// maxAncestors is how many a policy's status can have (the CRD's bound).
const maxAncestors = 16

// policy is a BackendTLSPolicy.
type policy struct {
	*gw.BackendTLSPolicy
	accepted verdict
	resolved verdict
	tls      *model.ClientTLS
}

// backendTLS makes one Backend rule for each Service with policies. Of policies for the same Service and port the oldest counts.
func (s *state) backendTLS() {
	rules := map[nn]*model.DestinationRule{}
	taken := map[string]*policy{}
	for _, o := range sortedByAge(s.in.Policies) {
		p := &policy{BackendTLSPolicy: o}
		s.readPolicy(p)
		won := false
		for i := range o.Spec.TargetRefs {
			t := &o.Spec.TargetRefs[i]
			svc := s.services[nn{o.Namespace, string(t.Name)}]
			if t.Group != "" || t.Kind != "Service" || svc == nil {
				continue
			}
			section := string(or(t.SectionName, ""))
			k := svc.Host + " " + section
			if first := taken[k]; first != nil {
				if !p.accepted.bad {
					p.accepted = no(gw.PolicyReasonConflicted, fmt.Sprintf("BackendTLSPolicy %s is older and targets the same: Service %s", nameOf(first), t.Name))
				}
				continue
			}
			taken[k], won = p, true
			s.addBackendRule(rules, svc, section, p)
		}
		if won && p.accepted.reason == string(gw.PolicyReasonConflicted) {
			p.accepted = verdict{} // it holds for a part of its targets
		}
		s.policyStatus(p)
	}
	for n, r := range rules {
		s.put(model.KindDestinationRule, n.namespace, r.Name, r)
	}
}

func (s *state) addBackendRule(rules map[nn]*model.DestinationRule, svc *model.Service, section string, p *policy) {
	n := nn{svc.Namespace, svc.Name}
	r := rules[n]
	if r == nil {
		r = &model.DestinationRule{Meta: model.Meta{Key: model.Key{Kind: model.KindDestinationRule, Namespace: n.namespace, Name: n.name + "~backend-tls"},
			Created: p.CreationTimestamp.Time, Source: keyOf(model.KindBackendTLSPolicy, p).String()}, Host: svc.Host, Backend: true}
		rules[n] = r
	}
	if section == "" {
		r.Policy.TLS = p.tls
		return
	}
	i := slices.IndexFunc(svc.Ports, func(x model.Port) bool { return x.Name == section })
	if i < 0 {
		if !p.accepted.bad {
			p.accepted = no(gw.PolicyReasonTargetNotFound, fmt.Sprintf("Service %s has no port %q", n, section))
		}
		return
	}
	if r.Policy.Ports == nil {
		r.Policy.Ports = map[uint16]model.TrafficPolicy{}
	}
	r.Policy.Ports[svc.Ports[i].Number] = model.TrafficPolicy{TLS: p.tls}
}

// readPolicy makes the policy's TLS. What it cannot be made of refuses connections: they would go out unverified otherwise.
func (s *state) readPolicy(p *policy) {
	v := &p.Spec.Validation
	p.tls = &model.ClientTLS{Mode: model.TLSSimple, SNI: string(v.Hostname), VerifyHost: string(v.Hostname)}
	for _, n := range v.SubjectAltNames {
		if n.Type == gw.URISubjectAltNameType {
			p.tls.SANs = append(p.tls.SANs, string(n.URI))
		} else {
			p.tls.SANs = append(p.tls.SANs, string(n.Hostname))
		}
	}
	from := referrer{kind: "BackendTLSPolicy", namespace: p.Namespace}
	for _, r := range v.CACertificateRefs {
		pem, bad := s.roots(from, string(r.Group), string(r.Kind), p.Namespace, string(r.Name),
			string(gw.BackendTLSPolicyReasonInvalidCACertificateRef), string(gw.BackendTLSPolicyReasonInvalidKind), string(gw.BackendTLSPolicyReasonInvalidCACertificateRef))
		if bad.bad && !p.resolved.bad {
			p.resolved = bad
		}
		p.tls.CABundle = append(p.tls.CABundle, pem...)
	}
	p.tls.SystemRoots = or(v.WellKnownCACertificates, "") == gw.WellKnownCACertificatesSystem
	switch {
	case len(v.CACertificateRefs) > 0 && len(p.tls.CABundle) == 0:
		p.accepted = no(gw.BackendTLSPolicyReasonNoValidCACertificate, "no roots to verify the backend with: "+p.resolved.message)
	default:
		for _, d := range convert.Check(keyOf(model.KindBackendTLSPolicy, p), p.BackendTLSPolicy) {
			if !strings.HasPrefix(d.Field, "spec.validation.caCertificateRefs[") && !strings.HasPrefix(d.Field, "spec.targetRefs[") { // ResolvedRefs tells of these
				p.accepted = no(gw.PolicyReasonInvalid, d.Field+": "+d.Message)
				break
			}
		}
	}
	p.tls.Refuse = p.accepted.bad
}

// policyStatus tells the Gateways that lead to the policy's targets.
func (s *state) policyStatus(p *policy) {
	st := &gw.PolicyStatus{Ancestors: []gw.PolicyAncestorStatus{}}
	gateways := map[nn]bool{}
	for i := range p.Spec.TargetRefs {
		for g := range s.used[nn{p.Namespace, string(p.Spec.TargetRefs[i].Name)}] {
			gateways[g] = true
		}
	}
	for _, g := range s.order {
		if !gateways[nameOf(g)] || len(st.Ancestors) == maxAncestors {
			continue
		}
		group, kind, ns := gw.Group(gw.GroupName), gw.Kind("Gateway"), gw.Namespace(g.Namespace)
		st.Ancestors = append(st.Ancestors, gw.PolicyAncestorStatus{
			AncestorRef:    gw.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: gw.ObjectName(g.Name)},
			ControllerName: gw.GatewayController(g.controller),
			Conditions: []metav1.Condition{
				condition(gw.PolicyConditionAccepted, p.accepted, gw.PolicyReasonAccepted, "the policy is accepted", p.Generation),
				condition(gw.BackendTLSPolicyConditionResolvedRefs, p.resolved, gw.BackendTLSPolicyReasonResolvedRefs, "all references are resolved", p.Generation),
			},
		})
	}
	s.out.Statuses[keyOf(model.KindBackendTLSPolicy, p)] = &Status{Policy: st}
}
