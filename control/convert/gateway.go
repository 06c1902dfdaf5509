package convert

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

func (c *conv) gateway(v *networking.Gateway) []model.Object {
	g := &model.Gateway{Meta: c.meta(), Selector: c.labels("spec.selector", v.Selector)}
	if len(v.Selector) == 0 {
		c.missing("spec.selector", "name the labels of the gateway's pods, as istio: ingressgateway")
	}
	if len(v.Servers) == 0 {
		c.missing("spec.servers", "add a server with port and hosts")
	}
	names, ports := map[string]bool{}, map[string]bool{}
	for i, s := range v.Servers {
		p := idx("spec.servers", i)
		srv := c.server(p, s)
		if s.Name != "" && names[s.Name] {
			c.fail(CodeDuplicateKey, p+".name", s.Name, "two servers have the same name", "rename one of them")
		}
		if srv.PortName != "" && ports[srv.PortName] {
			c.fail(CodeDuplicatePort, p+".port.name", srv.PortName, "two ports have the same name", "rename one of them")
		}
		names[s.Name], ports[srv.PortName] = true, true
		g.Servers = append(g.Servers, srv)
	}
	c.serverConflicts(g)
	return []model.Object{g}
}

func (c *conv) server(path string, s *networking.Server) model.Server {
	out := model.Server{Name: s.Name, Bind: s.Bind}
	if s.Bind != "" {
		if _, err := netip.ParseAddr(s.Bind); err != nil {
			c.fail(CodeInvalidValue, path+".bind", s.Bind, "this is not an IP address", "write an address like 127.0.0.1, or remove it")
		}
	}
	if s.Port == nil {
		c.missing(path+".port", "add port: {number: 80, name: http, protocol: HTTP}")
		return out
	}
	out.Port = c.port(path+".port.number", s.Port.Number)
	out.PortName = s.Port.Name
	if s.Port.Name == "" {
		c.missing(path+".port.name", "name the port, like http")
	} else if !portNameRE.MatchString(s.Port.Name) {
		c.fail(CodeInvalidName, path+".port.name", s.Port.Name, "the port name is not valid", "use lower-case letters, digits and '-'")
	}
	out.Protocol = c.protocol(path+".port.protocol", s.Port.Protocol)
	if out.Protocol == model.ProtocolUDP {
		c.fail(CodeUnsupportedField, path+".port.protocol", s.Port.Protocol, "a gateway takes no UDP", "use HTTP, HTTPS, HTTP2, GRPC, TLS or TCP")
	}
	c.serverHosts(path+".hosts", s.Hosts, &out)
	out.TLS = c.serverTLS(path, s, out.Protocol)
	return out
}

func (c *conv) protocol(path, s string) model.Protocol {
	if s == "" {
		c.missing(path, "use HTTP, HTTPS, HTTP2, GRPC, TLS or TCP")
		return model.ProtocolTCP
	}
	p, ok := ParseProtocol(s)
	if !ok {
		known := []string{"HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-Web", "TLS", "TCP"}
		c.fail(CodeInvalidValue, path, s, "this is not a protocol", enumHint(s, known))
		return model.ProtocolTCP
	}
	return p
}

func (c *conv) serverHosts(path string, hosts []string, out *model.Server) {
	if len(hosts) == 0 {
		c.missing(path, `name the hosts that are served, or "*"`)
	}
	seen := map[model.GatewayHost]bool{}
	for i, h := range hosts {
		p := idx(path, i)
		gh := model.GatewayHost{Namespace: "*", Host: strings.ToLower(h)}
		if ns, name, ok := strings.Cut(h, "/"); ok {
			gh = model.GatewayHost{Namespace: ns, Host: strings.ToLower(name)}
			if ns != "*" && ns != "." && !isLabel(ns) {
				c.fail(CodeInvalidHost, p, h, "the part before / is not a namespace", `write namespace/host, "./host" or "*/host"`)
			}
		}
		if msg := hostProblem(gh.Host, true); msg != "" {
			c.fail(CodeInvalidHost, p, h, msg, "write a name like www.example.com, *.example.com or *")
		}
		if seen[gh] {
			c.fail(CodeDuplicateHost, p, h, "the host is listed twice", "keep one of them")
		}
		seen[gh] = true
		out.Hosts = append(out.Hosts, gh)
	}
}

func (c *conv) serverTLS(path string, s *networking.Server, proto model.Protocol) *model.ServerTLS {
	t := s.Tls
	if t == nil {
		if proto.IsTLS() {
			c.missing(path+".tls", "a server of protocol "+string(proto)+" needs tls: {mode: SIMPLE, serverCertificate: …, privateKey: …}")
		}
		return nil
	}
	p := path + ".tls"
	out := &model.ServerTLS{Mode: t.Mode.String(), HTTPSRedirect: t.HttpsRedirect, CertFile: t.ServerCertificate, KeyFile: t.PrivateKey, CAFile: t.CaCertificates,
		SANs: t.SubjectAltNames, MinVersion: c.tlsVersion(p+".minProtocolVersion", t.MinProtocolVersion), MaxVersion: c.tlsVersion(p+".maxProtocolVersion", t.MaxProtocolVersion)}
	if !proto.IsTLS() {
		plainOnly := !c.o.Has(p+".mode") && t.ServerCertificate == "" && t.PrivateKey == "" && t.CaCertificates == "" &&
			t.CredentialName == "" && len(t.CredentialNames) == 0 && t.CaCertCredentialName == ""
		switch {
		case t.HttpsRedirect && plainOnly:
			return &model.ServerTLS{HTTPSRedirect: true}
		case proto.IsHTTP():
			c.fail(CodeExclusive, p, "", "a server of protocol "+string(proto)+" takes no tls except httpsRedirect", "use protocol HTTPS")
		case !c.o.Has(p + ".mode"):
			c.missing(p+".mode", "use SIMPLE, MUTUAL or PASSTHROUGH")
		}
	}
	if t.HttpsRedirect {
		c.fail(CodeExclusive, p+".httpsRedirect", "true", "httpsRedirect belongs to a server of protocol HTTP", "move it to the server on port 80")
	}
	c.credentials(p, t, out)
	c.tlsMode(p, t, out)
	c.cipherSuites(p, t, out)
	if out.Mode == model.TLSIstioMutual || out.Mode == model.TLSPassthrough {
		for field, v := range map[string]string{"minProtocolVersion": out.MinVersion, "maxProtocolVersion": out.MaxVersion} {
			if v != "" {
				c.fail(CodeUnsupportedField, p+"."+field, v, "the field has no effect with mode "+out.Mode, "remove it: the mesh's own TLS is 1.3, and what passes through is the application's")
			}
		}
	}
	if out.MinVersion == "TLSV1_3" && out.MaxVersion == "TLSV1_2" {
		c.warn(CodeTLSVersions, p+".minProtocolVersion", out.MinVersion, "the minimum TLS version is above the maximum: no client can connect", "lower minProtocolVersion or raise maxProtocolVersion")
	}
	return out
}

func (c *conv) tlsMode(p string, t *networking.ServerTLSSettings, out *model.ServerTLS) {
	files := []struct{ name, val string }{{"serverCertificate", t.ServerCertificate}, {"privateKey", t.PrivateKey}, {"caCertificates", t.CaCertificates}}
	switch t.Mode {
	case networking.ServerTLSSettings_SIMPLE, networking.ServerTLSSettings_MUTUAL, networking.ServerTLSSettings_OPTIONAL_MUTUAL:
		for i, f := range files {
			switch {
			case i < 2 && (t.CredentialName != "" || len(t.CredentialNames) > 0), i == 2 && out.CACredential != "":
				if f.val != "" {
					c.fail(CodeExclusive, p+"."+f.name, f.val, f.name+" and a Secret for the same", "keep one of them")
				}
			case f.val == "" && (i < 2 || t.Mode != networking.ServerTLSSettings_SIMPLE):
				c.missing(p+"."+f.name, "mode "+out.Mode+" needs a file, like /etc/certs/tls.crt, or credentialName with a Secret of the gateway's namespace")
			}
		}
		if t.Mode == networking.ServerTLSSettings_SIMPLE && t.CaCertificates != "" {
			c.fail(CodeExclusive, p+".caCertificates", t.CaCertificates, "mode SIMPLE asks clients for no certificate", "use mode MUTUAL")
		}
	case networking.ServerTLSSettings_PASSTHROUGH, networking.ServerTLSSettings_ISTIO_MUTUAL:
		for _, f := range files {
			if f.val != "" {
				c.fail(CodeExclusive, p+"."+f.name, f.val, "mode "+out.Mode+" takes no "+f.name, "use mode SIMPLE or MUTUAL")
			}
		}
	default:
		c.fail(CodeUnsupportedField, p+".mode", out.Mode, "the mode is not implemented yet", "use SIMPLE, MUTUAL, OPTIONAL_MUTUAL, ISTIO_MUTUAL or PASSTHROUGH")
	}
	if len(t.SubjectAltNames) > 0 && (t.Mode == networking.ServerTLSSettings_SIMPLE || t.Mode == networking.ServerTLSSettings_PASSTHROUGH) {
		c.fail(CodeExclusive, p+".subjectAltNames", strings.Join(t.SubjectAltNames, ", "), "subjectAltNames are of client certificates, which mode "+out.Mode+" does not ask for", "use mode MUTUAL")
	}
}

// suites are the cipher suites of TLS 1.2 that weft-proxy can be told to use, by OpenSSL's names; those of 1.3 cannot be chosen.
var suites = []string{"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
	"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA"}

// cipherSuites refuses what would have no effect: names that the proxy does not have, and suites where TLS 1.2 is not spoken.
func (c *conv) cipherSuites(p string, t *networking.ServerTLSSettings, out *model.ServerTLS) {
	p += ".cipherSuites"
	for i, s := range t.CipherSuites {
		if !slices.Contains(suites, s) {
			c.fail(CodeInvalidValue, idx(p, i), s, "this is not a cipher suite of TLS 1.2 that the proxy has", enumHint(s, suites))
		}
	}
	if len(t.CipherSuites) == 0 {
		return
	}
	out.CipherSuites = t.CipherSuites
	switch {
	case out.Mode == model.TLSIstioMutual || out.Mode == model.TLSPassthrough:
		c.fail(CodeUnsupportedField, p, strings.Join(t.CipherSuites, ", "), "the field has no effect with mode "+out.Mode, "remove it: the mesh's own TLS is 1.3, and what passes through is the application's")
	case out.MinVersion == "TLSV1_3":
		c.fail(CodeExclusive, p, strings.Join(t.CipherSuites, ", "), "the suites of TLS 1.3 cannot be chosen", "remove it, or allow TLSV1_2")
	}
}

func (c *conv) tlsVersion(path string, v networking.ServerTLSSettings_TLSProtocol) string {
	switch v {
	case networking.ServerTLSSettings_TLS_AUTO:
		return ""
	case networking.ServerTLSSettings_TLSV1_2, networking.ServerTLSSettings_TLSV1_3:
		return v.String()
	}
	c.fail(CodeUnsupportedField, path, v.String(), "TLS before 1.2 is not supported", "use TLSV1_2 or TLSV1_3")
	return ""
}

// serverConflicts refuses servers of one Gateway that cannot share a port.
func (c *conv) serverConflicts(g *model.Gateway) {
	type place struct {
		port uint16
		bind string
	}
	first := map[place]int{}
	hosts := map[string]int{}
	for i, s := range g.Servers {
		at := place{s.Port, s.Bind}
		path := idx("spec.servers", i)
		j, shared := first[at]
		if !shared {
			first[at] = i
		} else if a, b := portFamily(g.Servers[j]), portFamily(s); a != b {
			c.fail(CodeDuplicatePort, path+".port.number", strconv.Itoa(int(s.Port)), "the port is used for "+a+" and for "+b, "use another port")
		}
		for k, h := range s.Hosts {
			key := strconv.Itoa(int(s.Port)) + "|" + s.Bind + "|" + h.Namespace + "/" + h.Host
			if _, dup := hosts[key]; dup && shared {
				c.fail(CodeDuplicateHost, idx(path+".hosts", k), h.Host, "another server has this host on the same port", "keep one of them")
			}
			hosts[key] = i
		}
	}
}

func portFamily(s model.Server) string {
	switch {
	case s.Protocol.IsTLS() || s.TLS != nil && s.TLS.Mode != "":
		return "TLS"
	case s.Protocol.IsHTTP():
		return "HTTP"
	}
	return "TCP"
}
