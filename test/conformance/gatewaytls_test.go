package conformance

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"weft.mesh/weft/model"
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/proxytest"
)

// TestBackendTLSPoliciesProtectWhatGatewaysOpen: what control/gatewayapi makes of BackendTLSPolicies, through both proxies.
func TestBackendTLSPoliciesProtectWhatGatewaysOpen(t *testing.T) {
	mesh, public, clients, stranger := proxytest.NewMesh(t), identitytest.NewCA(t, "public"), identitytest.NewCA(t, "clients"), identitytest.NewCA(t, "stranger")
	server := public.Certificate(t, "", identitytest.DNS("real.example.com"))
	app := tlsApp(t, "app", &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: identitytest.Pool(clients), NextProtos: []string{"http/1.1"}})
	roots := []byte(identitytest.PEM(public.Cert))
	policies := map[string]model.ClientTLS{
		"good":    {SNI: "real.example.com", VerifyHost: "real.example.com", CABundle: roots},
		"san":     {SNI: "other.example.com", VerifyHost: "other.example.com", SANs: []string{"real.example.com"}, CABundle: roots},
		"uri":     {SNI: "real.example.com", VerifyHost: "real.example.com", SANs: []string{"spiffe://nobody/here"}, CABundle: roots},
		"name":    {SNI: "other.example.com", VerifyHost: "other.example.com", CABundle: roots},
		"root":    {SNI: "real.example.com", VerifyHost: "real.example.com", CABundle: []byte(identitytest.PEM(stranger.Cert))},
		"system":  {SNI: "real.example.com", VerifyHost: "real.example.com", SystemRoots: true},
		"refused": {SNI: "real.example.com", VerifyHost: "real.example.com", Refuse: true},
	}
	listener := &model.Gateway{Meta: meta(model.KindGateway, "default", "gw~https"), Selector: map[string]string{"app": "edge"}, OwnNamespace: true,
		BackendCredential: model.Credential("default", "own"), Servers: []model.Server{
			httpsServer("https", model.ServerTLS{Mode: model.TLSSimple, Credentials: []string{model.Credential("default", "www")}}, "www.example.com")}}
	routes := &model.RouteSet{Meta: meta(model.KindVirtualService, "default", "gw~https~www"), Hosts: []string{"www.example.com"}, Gateways: []string{"default/gw~https"}}
	objects := []model.Object{listener, routes, secretOf(t, public, "default", "www", "www.example.com"), secretOf(t, clients, "default", "own", "the gateway")}
	for name, p := range policies {
		host := name + ".default.svc.cluster.local"
		svc := appService(host, app)
		svc.External = false
		p.Mode = model.TLSSimple
		routes.HTTP = append(routes.HTTP, model.Route{Matches: []model.HTTPMatch{{PathPrefix: "/" + name}}, Forward: []model.Destination{{Host: host, Port: 80, Weight: 1}}})
		objects = append(objects, svc, &model.DestinationRule{Meta: meta(model.KindDestinationRule, "default", name+"~backend-tls"), Host: host, Backend: true, Policy: model.TrafficPolicy{TLS: &p}})
	}
	// DestinationRules with Secrets: the certificate and roots of one Secret, roots alone, neither.
	mutual, rootsOnly := secretOf(t, clients, "default", "mutual", "the rule"), &model.Secret{Meta: meta(model.KindSecret, "default", "plain-cacert"), CA: roots}
	mutual.CA = roots
	objects = append(objects, mutual, rootsOnly)
	for name, tls := range map[string]*model.ClientTLS{
		"rule-mutual":   {Mode: model.TLSMutual, Credential: model.OwnCredential("mutual"), SNI: "real.example.com"},
		"rule-simple":   {Mode: model.TLSSimple, Credential: model.OwnCredential("plain"), SNI: "real.example.com"},
		"rule-name":     {Mode: model.TLSSimple, Credential: model.OwnCredential("plain"), SNI: "other.example.com"},
		"rule-rootless": {Mode: model.TLSSimple, Credential: model.OwnCredential("own"), SNI: "real.example.com"},
		"rule-keyless":  {Mode: model.TLSMutual, Credential: model.OwnCredential("plain"), SNI: "real.example.com"},
		"rule-missing":  {Mode: model.TLSMutual, Credential: model.OwnCredential("nothing"), SNI: "real.example.com"},
	} {
		host := name + ".default.svc.cluster.local"
		routes.HTTP = append(routes.HTTP, model.Route{Matches: []model.HTTPMatch{{PathPrefix: "/" + name}}, Forward: []model.Destination{{Host: host, Port: 80, Weight: 1}}})
		objects = append(objects, appService(host, app), &model.DestinationRule{Meta: meta(model.KindDestinationRule, "default", name), Host: host, Policy: model.TrafficPolicy{TLS: tls}})
	}
	e := newEdge(t, mesh, objects...)
	for address := range e.ads {
		ask := func(path string) string {
			return strings.TrimPrefix(e.outcome(address, "www.example.com", "www.example.com", path, nil), "www.example.com: ")
		}
		proxytest.Until(t, address+" to serve", func() bool { return ask("/good") != "refused" })
		for path, want := range map[string]string{
			"/good": "200 app asked for real.example.com by the gateway", "/san": "200 app asked for other.example.com by the gateway",
			"/rule-mutual": "200 app asked for real.example.com by the rule", "/rule-simple": "200 app asked for real.example.com by nobody",
			"/rule-name": "503", "/rule-rootless": "503", "/rule-keyless": "503", "/rule-missing": "503", "/uri": "503", "/name": "503", "/root": "503", "/system": "503", "/refused": "503",
		} {
			if got := ask(path); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s: %q, want %q", address, path, got, want)
			}
		}
	}
}

// TestTLSListenersPassAndEndTLS: TLS listeners of both modes, HTTPS and several hosts on one port.
func TestTLSListenersPassAndEndTLS(t *testing.T) {
	mesh, public := proxytest.NewMesh(t), identitytest.NewCA(t, "public")
	passed := tlsApp(t, "passed", &tls.Config{Certificates: []tls.Certificate{public.Certificate(t, "", identitytest.DNS("*.pass.example.com"))}})
	plain := proxytest.StartApp(t, "plain")
	plain.Handle(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") })
	tcp := func(name string, port int) *model.Service {
		s := appService(name+".svc", port)
		s.Ports[0].Protocol = model.ProtocolTCP
		return s
	}
	to := func(name string) []model.Destination {
		return []model.Destination{{Host: name + ".svc", Port: 80, Weight: 1}}
	}
	listen := func(id string, server model.Server, host string) *model.Gateway {
		server.Port, server.Name, server.PortName = 443, id, id
		server.Hosts = []model.GatewayHost{{Namespace: "*", Host: host}}
		return &model.Gateway{Meta: meta(model.KindGateway, "default", id), Selector: map[string]string{"app": "edge"}, OwnNamespace: true, Servers: []model.Server{server}}
	}
	set := func(id, host string) *model.RouteSet {
		return &model.RouteSet{Meta: meta(model.KindVirtualService, "default", id+"~"+host), Hosts: []string{host}, Gateways: []string{"default/" + id}}
	}
	ends := &model.ServerTLS{Mode: model.TLSSimple, Credentials: []string{model.Credential("default", "ends")}}
	www := &model.ServerTLS{Mode: model.TLSSimple, Credentials: []string{model.Credential("default", "www")}}
	pass, one, two, gone, https := set("gw~pass", "a.pass.example.com"), set("gw~end~1", "one.end.example.com"), set("gw~end~2", "two.end.example.com"), set("gw~pass", "gone.pass.example.com"), set("gw~https", "www.example.com")
	pass.TLS = []model.L4Route{{Matches: []model.L4Match{{SNIHosts: []string{"a.pass.example.com"}}}, Forward: to("passed")}}
	gone.TLS = []model.L4Route{{Matches: []model.L4Match{{SNIHosts: []string{"gone.pass.example.com"}}}, Forward: []model.Destination{{Unresolved: true, Weight: 1}}}}
	one.TCP = []model.L4Route{{Forward: to("plain")}}
	two.TCP = []model.L4Route{{Forward: []model.Destination{{Unresolved: true, Weight: 1}}}}
	https.HTTP = []model.Route{{Direct: &model.Direct{Status: 211, Body: []byte("https")}}}
	e := newEdge(t, mesh, tcp("passed", passed), tcp("plain", plain.Port),
		secretOf(t, public, "default", "ends", "*.end.example.com"), secretOf(t, public, "default", "www", "www.example.com"),
		listen("gw~pass", model.Server{Protocol: model.ProtocolTLS, TLS: &model.ServerTLS{Mode: model.TLSPassthrough}}, "*.pass.example.com"),
		listen("gw~end~1", model.Server{Protocol: model.ProtocolTLS, TLS: ends}, "one.end.example.com"),
		listen("gw~end~2", model.Server{Protocol: model.ProtocolTLS, TLS: ends}, "two.end.example.com"),
		listen("gw~https", model.Server{Protocol: model.ProtocolHTTPS, TLS: www}, "www.example.com"), pass, gone, one, two, https)
	for address := range e.ads {
		ask := func(name string) string {
			return e.outcome(address, name+".example.com", name+".example.com", "/", nil)
		}
		proxytest.Until(t, address+" to serve", func() bool { return ask("www") != "refused" })
		for name, want := range map[string]string{
			"www": "www.example.com: 211 https", "a.pass": "*.pass.example.com: 200 passed asked for a.pass.example.com by nobody", "one.end": "*.end.example.com: 200 plain",
			"b.pass": "refused", "gone.pass": "refused", "three.end": "refused", "two.end": "refused",
		} {
			if got := ask(name); got != want {
				t.Errorf("%s: %s: %q, want %q", address, name, got, want)
			}
		}
	}
}
