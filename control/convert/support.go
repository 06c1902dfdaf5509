package convert

import (
	"reflect"
	"strings"
)

// refusal says why a field that the API has cannot be used.
type refusal struct {
	code string
	hint string // what to use instead
}

// support is what Weft does of one message: fields that are not listed are refused by name.
type support struct {
	all     bool // nothing is restricted
	allowed map[string]bool
	hints   map[string]string // for refused fields
	gone    map[string]string // deprecated or hidden: the replacement
	servers map[string]bool   // written by servers
}

const notYet = "not implemented yet; remove it"

func (s support) check(name string) *refusal {
	if s.all || s.allowed[name] || s.servers[name] {
		return nil
	}
	if r, ok := s.gone[name]; ok {
		return &refusal{CodeDeprecatedField, r}
	}
	if h, ok := s.hints[name]; ok {
		return &refusal{CodeUnsupportedField, h}
	}
	return &refusal{CodeUnsupportedField, notYet}
}

func (s support) server(name string) bool { return s.servers[name] }

func allow(names string) support {
	s := support{allowed: map[string]bool{}}
	for n := range strings.FieldsSeq(names) {
		s.allowed[n] = true
	}
	return s
}

func (s support) hint(pairs ...string) support {
	s.hints = pairMap(pairs)
	return s
}

func (s support) deprecated(pairs ...string) support {
	s.gone = pairMap(pairs)
	return s
}

func pairMap(pairs []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

const (
	netPkg  = "istio.networking.v1alpha3."
	secPkg  = "istio.security.v1beta1."
	typePkg = "istio.type.v1beta1."
)

// istioSupport is the allow-list of Istio's messages. A message that is not
// here has no supported field at all (a test checks that each one that can be
// reached through a supported field is here).
func istioSupport(name string) support {
	for _, table := range []func(string) (support, bool){virtualServiceSupport, destinationRuleSupport, gatewaySupport, entrySupport, securitySupport} {
		if s, ok := table(name); ok {
			return s
		}
	}
	return support{}
}

func virtualServiceSupport(name string) (support, bool) {
	switch strings.TrimPrefix(name, netPkg) {
	case "VirtualService":
		return allow("hosts gateways http tls tcp exportTo"), true
	case "HTTPRoute":
		return allow("name match route redirect directResponse rewrite timeout retries fault mirror mirrors mirrorPercentage corsPolicy headers").
			hint("delegate", "delegation is not implemented yet: write the routes into this VirtualService").
			deprecated("mirrorPercent", "use mirrorPercentage: {value: 50}"), true
	case "Destination":
		return allow("host subset port"), true
	case "Headers":
		return allow("request response"), true
	case "Headers.HeaderOperations":
		return allow("set add remove"), true
	case "HTTPMatchRequest":
		return allow("name uri scheme method authority headers port sourceLabels gateways queryParams ignoreUriCase withoutHeaders sourceNamespace").
			hint("statPrefix", "statistics for each route are not implemented yet; the standard metrics have destination and response code"), true
	case "HTTPRouteDestination":
		return allow("destination weight headers"), true
	case "RouteDestination":
		return allow("destination weight"), true
	case "TLSRoute", "TCPRoute":
		return allow("match route"), true
	case "L4MatchAttributes":
		return allow("destinationSubnets port sourceLabels gateways sourceNamespace").
			deprecated("sourceSubnet", "use sourceLabels or sourceNamespace, or an AuthorizationPolicy with ipBlocks"), true
	case "TLSMatchAttributes":
		return allow("sniHosts destinationSubnets port sourceLabels gateways sourceNamespace"), true
	case "HTTPRedirect":
		return allow("uri authority port derivePort scheme redirectCode prefixRewrite"), true
	case "HTTPDirectResponse":
		return allow("status body"), true
	case "HTTPBody":
		return allow("string bytes"), true
	case "HTTPRewrite":
		return allow("uri authority uriRegexRewrite"), true
	case "RegexRewrite":
		return allow("match rewrite"), true
	case "StringMatch":
		return allow("exact prefix regex"), true
	case "HTTPRetry":
		return allow("attempts perTryTimeout retryOn retryIgnorePreviousHosts backoff").
			hint("retryRemoteLocalities", "localities are not implemented yet: retries go to any endpoint"), true
	case "HTTPFaultInjection":
		return allow("delay abort"), true
	case "HTTPFaultInjection.Delay":
		return allow("fixedDelay percentage").deprecated("percent", "use percentage: {value: 10}", "exponentialDelay", "use fixedDelay"), true
	case "HTTPFaultInjection.Abort":
		return allow("httpStatus grpcStatus percentage").deprecated("http2Error", "use httpStatus or grpcStatus"), true
	case "HTTPMirrorPolicy":
		return allow("destination percentage"), true
	case "CorsPolicy":
		return allow("allowOrigins allowMethods allowHeaders exposeHeaders maxAge allowCredentials unmatchedPreflights").
			deprecated("allowOrigin", "use allowOrigins: [{exact: https://shop.example.com}]"), true
	case "PortSelector":
		return allow("number"), true
	case "Percent":
		return allow("value"), true
	}
	return support{}, false
}

func destinationRuleSupport(name string) (support, bool) {
	switch strings.TrimPrefix(name, netPkg) {
	case "DestinationRule":
		return allow("host trafficPolicy subsets exportTo workloadSelector"), true
	case "Subset":
		return allow("name labels trafficPolicy"), true
	case "TrafficPolicy":
		return allow("loadBalancer connectionPool outlierDetection tls portLevelSettings retryBudget proxyProtocol").
			hint("tunnel", "tunnelling through a proxy is not implemented yet: send the traffic to the proxy by its own host"), true
	case "TrafficPolicy.ProxyProtocol":
		return allow("version"), true
	case "TrafficPolicy.PortTrafficPolicy":
		return allow("port loadBalancer connectionPool outlierDetection tls"), true
	case "TrafficPolicy.RetryBudget":
		return allow("percent minRetryConcurrency").hint("budgetInterval", "the budget counts active requests; remove budgetInterval"), true
	case "LoadBalancerSettings":
		return allow("simple consistentHash localityLbSetting").
			hint("zoneAwareLbSetting", "zone-aware balancing is not implemented yet: use localityLbSetting", "warmup", "slow start is not implemented yet: remove it").
			deprecated("warmupDurationSecs", "Istio replaced it with warmup.duration, which is not implemented yet: remove it"), true
	case "LocalityLoadBalancerSetting":
		return allow("distribute failover failoverPriority enabled"), true
	case "LocalityLoadBalancerSetting.Distribute":
		return allow("from to"), true
	case "LocalityLoadBalancerSetting.Failover":
		return allow("from to"), true
	case "LoadBalancerSettings.ConsistentHashLB":
		return allow("httpHeaderName httpCookie useSourceIp httpQueryParameterName ringHash maglev").
			deprecated("minimumRingSize", "use ringHash: {minimumRingSize: 1024}"), true
	case "LoadBalancerSettings.ConsistentHashLB.RingHash":
		return allow("minimumRingSize"), true
	case "LoadBalancerSettings.ConsistentHashLB.MagLev":
		return allow("tableSize"), true
	case "LoadBalancerSettings.ConsistentHashLB.HTTPCookie":
		return allow("name path ttl attributes"), true
	case "LoadBalancerSettings.ConsistentHashLB.HTTPCookie.Attribute":
		return allow("name value"), true
	case "ConnectionPoolSettings":
		return allow("tcp http"), true
	case "ConnectionPoolSettings.TCPSettings":
		return allow("maxConnections connectTimeout tcpKeepalive maxConnectionDuration idleTimeout"), true
	case "ConnectionPoolSettings.TCPSettings.TcpKeepalive":
		return allow("probes time interval"), true
	case "ConnectionPoolSettings.HTTPSettings":
		return allow("http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries idleTimeout h2UpgradePolicy useClientProtocol maxConcurrentStreams").
			hint("http2KeepAlive", "HTTP/2 pings are not implemented yet; use tcp.tcpKeepalive"), true
	case "OutlierDetection":
		return allow("splitExternalLocalOriginErrors consecutiveLocalOriginFailures consecutiveGatewayErrors consecutive5xxErrors interval baseEjectionTime maxEjectionPercent minHealthPercent").
			hint("outlierDetectionHttpErrorCodes", "own error codes are not implemented yet; use consecutive5xxErrors or consecutiveGatewayErrors").
			deprecated("consecutiveErrors", "use consecutive5xxErrors or consecutiveGatewayErrors"), true
	case "ClientTLSSettings":
		return allow("mode clientCertificate privateKey caCertificates subjectAltNames sni insecureSkipVerify credentialName").
			hint("caCrl", "revocation lists are not implemented yet"), true
	}
	return support{}, false
}

func gatewaySupport(name string) (support, bool) {
	const spki = "use subjectAltNames with caCertificates"
	switch strings.TrimPrefix(name, netPkg) {
	case "Gateway":
		return allow("servers selector"), true
	case "Server":
		return allow("port bind hosts tls name").deprecated("defaultEndpoint", "route with a VirtualService that names this gateway"), true
	case "Port":
		return allow("number protocol name").deprecated("targetPort", "the gateway listens on port.number; remove targetPort"), true
	case "ServerTLSSettings":
		return allow("httpsRedirect mode serverCertificate privateKey caCertificates subjectAltNames minProtocolVersion maxProtocolVersion cipherSuites credentialName credentialNames caCertCredentialName").
			hint("tlsCertificates", "several files for one server are not implemented yet: use credentialNames with Secrets, or one serverCertificate and privateKey",
				"caCrl", "revocation lists are not implemented yet", "verifyCertificateSpki", spki, "verifyCertificateHash", spki,
				"insecureSkipVerify", "not implemented: use mode SIMPLE if clients need no certificate"), true
	}
	return support{}, false
}

func entrySupport(name string) (support, bool) {
	switch strings.TrimPrefix(name, netPkg) {
	case "ServiceEntry":
		return allow("hosts addresses ports location resolution endpoints workloadSelector exportTo subjectAltNames"), true
	case "ServicePort":
		return allow("number protocol name targetPort"), true
	case "WorkloadEntry":
		return allow("address ports labels weight serviceAccount locality").
			hint("network", "several networks are not implemented yet: all addresses must be reachable directly"), true
	case "WorkloadSelector":
		return allow("labels"), true
	}
	return support{}, false
}

func securitySupport(name string) (support, bool) {
	const noTarget = "waypoints are not implemented yet: use selector.matchLabels"
	const noJWT = "JWT (RequestAuthentication) is not implemented yet: use principals, namespaces or serviceAccounts"
	switch name {
	case secPkg + "PeerAuthentication":
		return allow("selector mtls portLevelMtls"), true
	case secPkg + "PeerAuthentication.MutualTLS":
		return allow("mode"), true
	case secPkg + "AuthorizationPolicy":
		return allow("selector rules action").
			hint("targetRef", noTarget, "targetRefs", noTarget, "provider", "external authorization is not implemented yet: use ALLOW or DENY rules"), true
	case secPkg + "Rule":
		return allow("from to when"), true
	case secPkg + "Rule.From":
		return allow("source"), true
	case secPkg + "Rule.To":
		return allow("operation"), true
	case secPkg + "Source":
		return allow("principals notPrincipals namespaces notNamespaces serviceAccounts notServiceAccounts ipBlocks notIpBlocks remoteIpBlocks notRemoteIpBlocks trustDomains notTrustDomains").
			hint("requestPrincipals", noJWT, "notRequestPrincipals", noJWT), true
	case secPkg + "Operation":
		return allow("hosts notHosts ports notPorts methods notMethods paths notPaths"), true
	case secPkg + "Condition":
		return allow("key values notValues"), true
	case typePkg + "WorkloadSelector":
		return allow("matchLabels"), true
	}
	return support{}, false
}

// kubeSupport is the allow-list of Kubernetes types. The pod template is not
// restricted here: Options.CheckDeployment judges it, because what can be run
// is the runtime's business.
func kubeSupport(t reflect.Type) support {
	switch t.Name() {
	case "Namespace", "Service", "ServiceAccount", "Deployment", "Ingress", "IngressClass":
		s := allow("kind apiVersion metadata spec").hint("secrets", "service account tokens are not used: an identity is a certificate",
			"imagePullSecrets", "there are no images to pull in a mesh without Kubernetes", "automountServiceAccountToken", "tokens are never mounted; remove it")
		s.servers = map[string]bool{"status": true}
		return s
	case "ObjectMeta":
		s := allow("name namespace labels annotations creationTimestamp deletionTimestamp").
			hint("generateName", "give the object a name", "finalizers", "finalizers need the Kubernetes API server; remove them")
		s.servers = map[string]bool{"uid": true, "resourceVersion": true, "generation": true, "managedFields": true, "selfLink": true,
			"ownerReferences": true, "deletionGracePeriodSeconds": true}
		return s
	case "NamespaceSpec":
		s := support{servers: map[string]bool{"finalizers": true}}
		return s
	case "ServiceSpec":
		return serviceSupport()
	case "ServicePort":
		return allow("name protocol appProtocol port targetPort nodePort")
	}
	return support{all: true}
}

func serviceSupport() support {
	s := allow("ports selector clusterIP clusterIPs type sessionAffinity ipFamilies ipFamilyPolicy internalTrafficPolicy externalTrafficPolicy").
		hint("externalName", "use a ServiceEntry with resolution: DNS and the name as its endpoint",
			"externalIPs", "use a Gateway to reach the service from outside",
			"loadBalancerIP", "use a Gateway to reach the service from outside",
			"loadBalancerSourceRanges", "use an AuthorizationPolicy with ipBlocks on the gateway",
			"loadBalancerClass", "use a Gateway to reach the service from outside",
			"sessionAffinityConfig", "use a DestinationRule with trafficPolicy.loadBalancer.consistentHash.useSourceIp",
			"publishNotReadyAddresses", "endpoints that are not ready get no traffic; remove it",
			"trafficDistribution", "localities are not implemented yet; remove it")
	s.servers = map[string]bool{"allocateLoadBalancerNodePorts": true, "healthCheckNodePort": true} // of each Service of type LoadBalancer
	return s
}
