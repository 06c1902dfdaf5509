package gatewayapi

import (
	"strings"

	gw "sigs.k8s.io/gateway-api/apis/v1"
)

// features are the names of what is supported, as the API's conformance suite spells them, sorted: what a cluster with the definitions of the
// standard channel has shown. These have no retry, which works where an HTTPRoute may have it.
const features = `BackendTLSPolicy BackendTLSPolicySANValidation GRPCRoute GRPCRouteNamedRouteRule Gateway GatewayAddressEmpty GatewayBackendClientCertificate
GatewayFrontendClientCertificateValidation GatewayFrontendClientCertificateValidationInsecureFallback GatewayHTTPListenerIsolation
GatewayHTTPSListenerDetectMisdirectedRequests GatewayInfrastructure GatewayPort8080 GatewayStaticAddresses HTTPRoute
HTTPRoute303RedirectStatusCode HTTPRoute307RedirectStatusCode HTTPRoute308RedirectStatusCode HTTPRouteBackendProtocolH2C
HTTPRouteBackendProtocolWebSocket HTTPRouteBackendRequestHeaderModification HTTPRouteBackendTimeout HTTPRouteCORS
HTTPRouteDestinationPortMatching HTTPRouteHostRewrite HTTPRouteMethodMatching HTTPRouteNamedRouteRule HTTPRouteParentRefPort
HTTPRoutePathRedirect HTTPRoutePathRewrite HTTPRoutePortRedirect HTTPRouteQueryParamMatching HTTPRouteRequestMirror
HTTPRouteRequestMultipleMirrors HTTPRouteRequestPercentageMirror HTTPRouteRequestTimeout HTTPRouteResponseHeaderModification
HTTPRouteSchemeRedirect ListenerSet Mesh MeshClusterIPMatching MeshConsumerRoute MeshHTTPRouteBackendRequestHeaderModification
MeshHTTPRouteNamedRouteRule MeshHTTPRouteQueryParamMatching MeshHTTPRouteRedirectPath MeshHTTPRouteRedirectPort MeshHTTPRouteRewritePath
MeshHTTPRouteSchemeRedirect ReferenceGrant TCPRoute TLSRoute TLSRouteModeMixed TLSRouteModeTerminate`

// Features are the features of the Gateway API that GatewayClasses of ours claim.
func Features() []gw.SupportedFeature {
	var out []gw.SupportedFeature
	for f := range strings.FieldsSeq(features) {
		out = append(out, gw.SupportedFeature{Name: gw.FeatureName(f)})
	}
	return out
}
