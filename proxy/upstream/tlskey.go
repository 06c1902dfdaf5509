package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"weft.mesh/weft/proxy/config"
)

// tlsFor finds the TLS settings of an endpoint and the version of the PROXY header
// before them: of the first transport match whose labels it has, else the cluster's own.
func tlsFor(c *config.Cluster, ep *config.Endpoint) (*config.UpstreamTLS, uint8) {
	for i := range c.TLSMatches {
		if m := &c.TLSMatches[i]; labelled(ep.Transport, m.Match) {
			return m.TLS, m.ProxyProtocol
		}
	}
	return c.TLS, c.ProxyProtocol
}

func labelled(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// connKey says which connections are alike: to change one of these settings
// needs new connections, to change anything else does not.
func connKey(c *config.Cluster, tls *config.UpstreamTLS, proxy uint8) string {
	return fmt.Sprintf("%d|%v|%d|%t|%+v|%s", c.Protocol, c.BindSource, proxy, c.MetadataExchange, c.TCPKeepalive, tlsKey(tls))
}

func tlsKey(t *config.UpstreamTLS) string {
	if t == nil {
		return "plaintext"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%t|%q|%q|%t|%d|%d|%d|%t|%p", t.Workload, t.SNI, t.ALPN, t.Insecure, t.MinVersion, t.MaxVersion, t.CipherSuites, t.AutoSNI, t.RootCAs)
	for _, s := range t.SANs {
		fmt.Fprintf(&b, "|%d,%d,%q,%t,%v", s.Kind, s.Match.Kind, s.Match.Value, s.Match.IgnoreCase, s.Match.Regex)
	}
	for _, c := range t.Certificates {
		if len(c.Certificate) > 0 {
			sum := sha256.Sum256(c.Certificate[0])
			b.WriteString("|" + hex.EncodeToString(sum[:]))
		}
	}
	return b.String()
}

// alpnFor is what HTTP connections offer. Between workloads the names say
// that HTTP is spoken inside mutual TLS, so that the peer takes its HTTP filter
// chain (Istio's alpn filter).
func alpnFor(tls *config.UpstreamTLS, proto config.Protocol) []string {
	switch {
	case tls == nil:
		return nil
	case proto == config.ProtoALPN:
		if len(tls.ALPN) > 0 {
			return tls.ALPN
		}
		return []string{"h2", "http/1.1"}
	case tls.Workload && proto == config.ProtoHTTP2:
		return []string{"istio-h2", "istio", "h2"}
	case tls.Workload:
		return []string{"istio-http/1.1", "istio", "http/1.1"}
	case proto == config.ProtoHTTP2:
		return []string{"h2"}
	case len(tls.ALPN) > 0:
		return tls.ALPN
	}
	return []string{"http/1.1"}
}
