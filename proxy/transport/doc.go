// Package transport is how bytes reach a peer and who the peer proved to be:
// dialing in plaintext, TLS and mTLS with the workload's SVID, and the server's
// side of a handshake. It returns connections and fills in
// [stream.ConnInfo]; it does not choose hosts, pool connections or retry.
//
// Peers that must be workloads are verified against the trust bundle of the trust domain
// their certificate names, never against any other roots. What cannot be verified is refused.
//
// Sessions are not resumed where a client certificate or an SVID is involved: a
// resumed session carries the old certificates, which would outlive a change of
// the trust bundle, and ties the connection to an earlier identity. A mesh keeps its
// connections, so a full handshake costs little. Gateways that ask for no client certificate
// use the session tickets of crypto/tls.
//
// Revocation lists are not read: SVIDs live for hours.
// Safe for concurrent use. It starts no goroutine.
package transport

// ALPN protocols.
const (
	ALPNHTTP11       = "http/1.1"
	ALPNHTTP2        = "h2"
	ALPNIstioHTTP10  = "istio-http/1.0"
	ALPNIstioHTTP11  = "istio-http/1.1"
	ALPNIstioH2      = "istio-h2"
	ALPNIstio        = "istio"
	ALPNPeerExchange = "istio-peer-exchange"
)

// IsHTTP2 tells whether an ALPN protocol means HTTP/2.
func IsHTTP2(alpn string) bool { return alpn == ALPNHTTP2 || alpn == ALPNIstioH2 }
