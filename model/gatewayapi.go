package model

import (
	"strings"
	"time"
)

// Kinds of the Gateway API (gateway.networking.k8s.io). A Gateway of it has the
// name of Istio's kind and is told apart by kind and group, as kubectl writes it.
const (
	KindGatewayClass     Kind = "GatewayClass"
	KindK8sGateway       Kind = "Gateway.gateway.networking.k8s.io"
	KindListenerSet      Kind = "ListenerSet"
	KindHTTPRoute        Kind = "HTTPRoute"
	KindGRPCRoute        Kind = "GRPCRoute"
	KindTLSRoute         Kind = "TLSRoute"
	KindTCPRoute         Kind = "TCPRoute"
	KindReferenceGrant   Kind = "ReferenceGrant"
	KindBackendTLSPolicy Kind = "BackendTLSPolicy"
)

// IsGatewayAPI tells whether a kind takes part in the computation of
// control/gatewayapi as an object of the Gateway API.
func (k Kind) IsGatewayAPI() bool {
	switch k {
	case KindGatewayClass, KindK8sGateway, KindListenerSet, KindHTTPRoute, KindGRPCRoute, KindTLSRoute, KindTCPRoute,
		KindReferenceGrant, KindBackendTLSPolicy:
		return true
	}
	return false
}

// What control/gatewayapi makes of the Gateway API are values of the kinds that
// the World knows: Gateway, RouteSet (kind VirtualService) and DestinationRule.
// Their names hold a "~", which no written object's name can, and Meta.Source
// names the object that they come from ("HTTPRoute default/web").
//
//   - Every accepted listener of a Gateway or ListenerSet is a Gateway of its own
//     with one Server, so that a RouteSet names listeners by its Gateways field.
//   - At a gateway there is one RouteSet for each listener and host. Its HTTP
//     routes are all that is attached there, in order of precedence, each with at
//     most one match: the order is the answer, nothing sorts again. What none
//     takes is 404. A host that belongs to a listener but to no route of it
//     has a RouteSet too, whose only route answers 404, so that no less specific listener's routes take it.
//   - In the mesh there is one RouteSet for each Service that routes have as
//     parent, with Gateways "mesh". Routes for one port of it have HTTPMatch.Port.

// CORS answers and marks cross-origin requests (HTTPCORSFilter; Istio's
// CorsPolicy). A preflight is a request OPTIONS with origin and
// access-control-request-method.
//
// A preflight whose origin is allowed is answered by the proxy with 200 and the
// headers below, and is not forwarded. A preflight from another origin is
// answered 200 without any of them, unless ForwardUnmatched. Other requests are
// forwarded; if the origin is allowed the response gets allow-origin,
// allow-credentials and expose-headers, in place of what the application wrote.
//
// access-control-allow-origin is the request's origin, also for "*" (never "*" itself).
// "*" in Methods, Headers or Expose is a wildcard: methods and headers are
// answered with what the preflight asks for (access-control-request-method,
// access-control-request-headers; without these fields the header is left out);
// Expose is answered "*", and left out with Credentials.
type CORS struct {
	Origins          []StringMatch // compared with the whole origin header; a Regex matches it whole
	Methods          []string      // access-control-allow-methods; none: no header
	Headers          []string      // access-control-allow-headers; none: no header
	Expose           []string      // access-control-expose-headers; none: no header
	MaxAge           time.Duration // access-control-max-age in seconds; 0: no header
	Credentials      bool          // access-control-allow-credentials: true; else no header
	ForwardUnmatched bool          // preflights from origins that are not allowed go on (Istio's default; the Gateway API answers them)
}

// TLSInsecureFallback is the mode of a ServerTLS that asks for a client
// certificate and takes the connection also without one and with one that does
// not verify (Gateway API: AllowInsecureFallback). Identity is then not known.
const TLSInsecureFallback = "INSECURE_FALLBACK"

// CredentialPrefix begins the name of a Secret of gateways ([ServerTLS].Credentials,
// [Gateway].BackendCredential): kubernetes-gateway://namespace/name, as Istio names it in SDS.
const CredentialPrefix = "kubernetes-gateway://"

// Credential names a Secret for gateways.
func Credential(namespace, name string) string { return CredentialPrefix + namespace + "/" + name }

// OwnCredentialPrefix begins the name of a Secret in the namespace of the gateway's workload (Istio's credentialName): kubernetes://name.
const OwnCredentialPrefix = "kubernetes://"

// OwnCredential names a Secret in the namespace of whichever workload asks for it.
func OwnCredential(name string) string { return OwnCredentialPrefix + name }

// CredentialCASuffix is at the end of the name of roots: of the Secret name-cacert, else of the Secret name (its ca.crt).
const CredentialCASuffix = "-cacert"

// ParseCredential reads the name of a Secret as a workload in the namespace own means it.
func ParseCredential(s, own string) (namespace, name string, ok bool) {
	if name, ok = strings.CutPrefix(s, OwnCredentialPrefix); ok {
		return own, name, name != "" && !strings.Contains(name, "/")
	}
	rest, ok := strings.CutPrefix(s, CredentialPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, "/")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, "/")
}

// GatewayNameLabel is on the pods of a Gateway API gateway, with the Gateway's name; on local pods it is not needed.
const GatewayNameLabel = "gateway.networking.k8s.io/gateway-name"
