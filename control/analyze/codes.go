package analyze

import "weft.mesh/weft/control/convert"

// Diagnostic codes of this package. They are stable: scripts and documentation rely on them.
const (
	CodeUnknownHost      = "unknown-host"
	CodeUnknownSubset    = "unknown-subset"
	CodeUnknownPort      = "unknown-port"
	CodeAmbiguousPort    = "ambiguous-port"
	CodeUnknownGateway   = "unknown-gateway"
	CodeGatewayHost      = "gateway-host-mismatch"
	CodeUnreachableRoute = "unreachable-route"
	CodeShadowedMatch    = "shadowed-match"
	CodeWeightSum        = "weight-sum"
	CodeHostConflict     = "host-conflict"
	CodeHostNoService    = "host-without-service"
	CodeRuleConflict     = "rule-conflict"
	CodeSelectsNothing   = "selector-matches-nothing"
	CodeSubsetNothing    = "subset-matches-nothing"
	CodePeerConflict     = "peer-authentication-conflict"
	CodeMTLSConflict     = "mtls-conflict"
	CodeHTTPOnTCP        = "http-rule-on-tcp"
	CodeUnknownPrincipal = "unknown-principal"
	CodeUnknownAccount   = "unknown-service-account"
	CodeUnknownTarget    = "unknown-target-port"
	CodeAddressConflict  = "address-conflict"
	CodeGatewayPort      = "gateway-port-conflict"
	CodeMissingNamespace = "missing-namespace"
	CodeTimeoutRetries   = "timeout-cuts-retries"
	CodeFaultRetries     = "fault-disables-retries"
	CodeGatewayAPI       = "gateway-api-condition"
	CodeUnknownParent    = "unknown-parent"
	CodeUnknownSecret    = "unknown-secret"
	CodeIngressPath      = "ingress-path-conflict"
	CodeIngressTLS       = "ingress-tls-conflict"
	CodeIngressClass     = "ingress-class"
)

// Codes lists every diagnostic code, those of control/convert first.
func Codes() []convert.CodeInfo {
	return append(convert.Codes(), []convert.CodeInfo{
		{Code: CodeUnknownHost, Meaning: "A route, mirror or DestinationRule names a host that is no service of the mesh, or one that is not exported to the namespace.", Fix: "Correct the name, use the full name if the service is in another namespace, or add a Service or ServiceEntry."},
		{Code: CodeUnknownSubset, Meaning: "A route names a subset that no DestinationRule of the host defines.", Fix: "Add the subset to the DestinationRule, in the same apply or before."},
		{Code: CodeUnknownPort, Meaning: "A port is named that the service does not have.", Fix: "Use one of the service's ports."},
		{Code: CodeAmbiguousPort, Meaning: "A destination has several ports, the route names none, and the port of the request is not one of them.", Fix: "Add port: {number: …} to the destination."},
		{Code: CodeUnknownGateway, Meaning: "A VirtualService names a Gateway that does not exist.", Fix: "Correct the name (namespace/name if it is in another namespace), or add the Gateway."},
		{Code: CodeGatewayHost, Meaning: "No server of the Gateway has a host of the VirtualService.", Fix: "Add the host to the Gateway's server, or correct spec.hosts."},
		{Code: CodeUnreachableRoute, Meaning: "Every request that the route matches is taken by an earlier route.", Fix: "Move the route before the one named, or remove it."},
		{Code: CodeShadowedMatch, Meaning: "One match of a route is taken by an earlier route or match.", Fix: "Remove the match, or move the route."},
		{Code: CodeWeightSum, Meaning: "The weights of a route do not add up to 100; they are relative, so the shares differ from the numbers.", Fix: "Make the sum 100."},
		{Code: CodeHostConflict, Meaning: "Two VirtualServices route the same host for sidecars; the older one wins and the other has no effect.", Fix: "Put all routes of the host into one VirtualService."},
		{Code: CodeHostNoService, Meaning: "A VirtualService routes a host for sidecars that is no service.", Fix: "Add a Service or ServiceEntry with that host."},
		{Code: CodeRuleConflict, Meaning: "Two DestinationRules of one namespace are for the same host; their subsets are merged and the older trafficPolicy wins.", Fix: "Make one of them."},
		{Code: CodeSelectsNothing, Meaning: "A selector matches no pod.", Fix: "Compare it with the labels in the Deployment's pod template."},
		{Code: CodeSubsetNothing, Meaning: "A subset's labels match no pod of the service.", Fix: "Compare them with the labels in the Deployment's pod template."},
		{Code: CodePeerConflict, Meaning: "A namespace (or the mesh) has two PeerAuthentications without a selector; only the oldest counts.", Fix: "Keep one of them."},
		{Code: CodeMTLSConflict, Meaning: "A DestinationRule switches mutual TLS off for a service that takes nothing else, or sends a PROXY header before it.", Fix: "Remove tls from the DestinationRule, or use ISTIO_MUTUAL; with proxyProtocol use tls mode DISABLE or SIMPLE."},
		{Code: CodeHTTPOnTCP, Meaning: "A rule has HTTP fields (hosts, methods, paths, headers) for ports that are not HTTP: an ALLOW rule never matches, a DENY rule ignores them and denies more.", Fix: "Use principals, namespaces, IP blocks and ports, or name the service port http-…"},
		{Code: CodeUnknownPrincipal, Meaning: "A policy names a service account or trust domain that does not exist.", Fix: "Write cluster.local/ns/<namespace>/sa/<account> with an existing ServiceAccount."},
		{Code: CodeUnknownAccount, Meaning: "A Deployment uses a ServiceAccount that does not exist; Kubernetes would make no pod.", Fix: "Add the ServiceAccount."},
		{Code: CodeUnknownTarget, Meaning: "A service's targetPort is a name that no container port of its pods has.", Fix: "Name the container port so, or use its number."},
		{Code: CodeAddressConflict, Meaning: "Two services have the same address and port.", Fix: "Remove clusterIP or addresses: an address is chosen."},
		{Code: CodeGatewayPort, Meaning: "Two Gateways on the same pods use one port for different protocols, or serve the same host on it.", Fix: "Use another port, or put the servers into one Gateway."},
		{Code: CodeMissingNamespace, Meaning: "An object is in a namespace that no Namespace object declares.", Fix: "Add the Namespace."},
		{Code: CodeTimeoutRetries, Meaning: "The timeout of a route ends before its retries can be made.", Fix: "Raise timeout, or lower attempts or perTryTimeout."},
		{Code: CodeFaultRetries, Meaning: "A route injects faults; its timeout and retries do not apply to injected answers.", Fix: "Test retries with a service that fails, or remove them from this route."},
		{Code: CodeGatewayAPI, Meaning: "An object of the Gateway API has not the effect that it asks for; the message is the condition in its status.", Fix: "See the hint; weft get -o yaml shows all conditions."},
		{Code: CodeUnknownParent, Meaning: "A route names a Gateway or ListenerSet, or a Gateway a GatewayClass, that does not exist.", Fix: "Correct the name and namespace, or add the object."},
		{Code: CodeIngressPath, Meaning: "Two Ingresses (or one) lead the same path of a host to backends; the older one's counts.", Fix: "Keep one of them."},
		{Code: CodeIngressTLS, Meaning: "Two tls entries of Ingresses name different Secrets for a host; the older Ingress's is served.", Fix: "Name the same Secret, or keep one of them."},
		{Code: CodeIngressClass, Meaning: "An Ingress is of no class that is served, so that it has no effect.", Fix: "Set spec.ingressClassName: weft."},
		{Code: CodeUnknownSecret, Meaning: "The Secret of a Gateway's server or of an Ingress does not exist where the gateway's pods are, or holds no certificate that can be served; the server's hosts are not served.", Fix: "Add the Secret to the namespace of the gateway's pods, with tls.crt and tls.key, and ca.crt for client certificates."},
	}...)
}
