package analyze

import (
	"fmt"
	"slices"
	"strings"

	"weft.mesh/weft/model"
)

// checkSecrets finds servers of Istio's Gateways whose Secret cannot be served. They are not
// refused: a Secret may come later, and until then the server's hosts alone are not served.
func (s *set) checkSecrets() {
	for _, it := range s.items {
		for _, m := range it.models {
			g, ok := m.(*model.Gateway)
			if !ok || g.Origin != nil {
				continue
			}
			for i := range g.Servers {
				if t := g.Servers[i].TLS; t != nil {
					s.checkServerSecrets(it, g, fmt.Sprintf("spec.servers[%d].tls", i), t)
				}
			}
		}
	}
}

func (s *set) checkServerSecrets(it *item, g *model.Gateway, path string, t *model.ServerTLS) {
	for j, c := range t.Credentials {
		p := path + ".credentialName"
		if !it.obj.Has(p) {
			p = fmt.Sprintf("%s.credentialNames[%d]", path, j)
		}
		name := strings.TrimPrefix(c, model.OwnCredentialPrefix)
		s.checkSecret(it, g, p, name, []string{name}, func(x *model.Secret) string {
			if x.Problem == "" && len(x.Cert) == 0 {
				return "the Secret has no tls.crt and tls.key"
			}
			return x.Problem
		})
	}
	if t.CACredential == "" {
		return
	}
	p := path + ".caCertCredentialName"
	if !it.obj.Has(p) {
		p = path + ".credentialName"
	}
	name := strings.TrimPrefix(t.CACredential, model.OwnCredentialPrefix)
	s.checkSecret(it, g, p, name, []string{name + model.CredentialCASuffix, name}, func(x *model.Secret) string {
		switch {
		case x.Problem == "" && len(x.CA) == 0:
			return "the Secret has no ca.crt to verify clients with, and there is no Secret " + name + model.CredentialCASuffix
		case len(x.CRL) > 0:
			return "the Secret has a revocation list, which is not supported: remove ca.crl"
		}
		return x.Problem
	})
}

// checkSecret looks for the first of some Secrets in each namespace that has pods of the gateway; where none is known, anywhere.
func (s *set) checkSecret(it *item, g *model.Gateway, path, val string, names []string, problem func(*model.Secret) string) {
	var spaces []string
	for _, w := range s.selected(g.Selector, "") {
		if !slices.Contains(spaces, w.namespace) {
			spaces = append(spaces, w.namespace)
		}
	}
	if len(spaces) == 0 {
		spaces = []string{""}
	}
	for _, ns := range spaces {
		x := s.secret(ns, names)
		switch where := strings.TrimPrefix(ns+"/"+names[0], "/"); {
		case x == nil:
			s.warn(it, CodeUnknownSecret, path, val, "there is no Secret "+where+": the hosts of this server are not served", "add the Secret to the namespace of the gateway's pods")
		case problem(x) != "":
			s.warn(it, CodeUnknownSecret, path, val, fmt.Sprintf("the hosts of this server are not served: %s: %s", x.Meta.Key, problem(x)), "put a certificate and its key into tls.crt and tls.key, and roots for client certificates into ca.crt")
		}
	}
}

// secret is the first of some Secrets in a namespace; "" is any.
func (s *set) secret(ns string, names []string) *model.Secret {
	for _, n := range names {
		for _, it := range s.items {
			if k := it.obj.Key; k.Kind != model.KindSecret || k.Name != n || ns != "" && k.Namespace != ns {
				continue
			}
			for _, m := range it.models {
				if x, ok := m.(*model.Secret); ok {
					return x
				}
			}
		}
	}
	return nil
}
