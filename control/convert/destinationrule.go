package convert

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

func (c *conv) destinationRule(v *networking.DestinationRule) []model.Object {
	r := &model.DestinationRule{Meta: c.meta(), Host: c.host("spec.host", v.Host, true), ExportTo: c.exportTo("spec.exportTo", v.ExportTo),
		Policy: c.trafficPolicy("spec.trafficPolicy", v.TrafficPolicy)}
	if v.WorkloadSelector != nil {
		r.Selector = c.selector("spec.workloadSelector", "matchLabels", true, v.WorkloadSelector.MatchLabels)
	}
	names := map[string]bool{}
	for i, s := range v.Subsets {
		p := idx("spec.subsets", i)
		switch {
		case s.Name == "":
			c.missing(p+".name", "name the subset, like v1")
		case !isSubsetName(s.Name):
			c.fail(CodeInvalidName, p+".name", s.Name, "the subset name is not valid", "use letters, digits, '-', '_' and '.'")
		case names[s.Name]:
			c.fail(CodeDuplicateSubset, p+".name", s.Name, "two subsets have the same name", "rename one of them")
		}
		names[s.Name] = true
		r.Subsets = append(r.Subsets, model.Subset{Name: s.Name, Labels: c.labels(p+".labels", s.Labels), Policy: c.trafficPolicy(p+".trafficPolicy", s.TrafficPolicy)})
	}
	return []model.Object{r}
}

func (c *conv) trafficPolicy(path string, p *networking.TrafficPolicy) model.TrafficPolicy {
	if p == nil {
		return model.TrafficPolicy{}
	}
	out := model.TrafficPolicy{
		LB:      c.loadBalancer(path+".loadBalancer", p.LoadBalancer),
		Pool:    c.connectionPool(path+".connectionPool", p.ConnectionPool),
		Outlier: c.outlier(path+".outlierDetection", p.OutlierDetection),
		TLS:     c.clientTLS(path+".tls", p.Tls),
	}
	if l := p.LoadBalancer.GetLocalityLbSetting(); (len(l.GetFailover()) > 0 || len(l.GetFailoverPriority()) > 0) && p.OutlierDetection == nil {
		c.warn(CodeNoOutlier, path+".loadBalancer.localityLbSetting", "", "failover has no effect without outlierDetection: nobody would notice that an endpoint fails",
			"add outlierDetection, {} is enough")
	}
	if b := p.RetryBudget; b != nil {
		out.RetryBudget = &model.RetryBudget{Percent: c.percentValue(path+".retryBudget.percent", b.Percent, 20), Min: 3}
		if c.o.Has(path + ".retryBudget.minRetryConcurrency") {
			out.RetryBudget.Min = b.MinRetryConcurrency
		}
	}
	if v := p.ProxyProtocol; v != nil {
		out.ProxyProtocol = uint8(v.Version) + 1
		if _, ok := networking.TrafficPolicy_ProxyProtocol_VERSION_name[int32(v.Version)]; !ok {
			c.fail(CodeInvalidValue, path+".proxyProtocol.version", v.Version.String(), "this is not a version", "use V1 or V2")
		}
	}
	for i, pp := range p.PortLevelSettings {
		pth := idx(path+".portLevelSettings", i)
		if pp.Port == nil {
			c.missing(pth+".port", "add port: {number: 80}")
			continue
		}
		n := c.port(pth+".port.number", pp.Port.Number)
		if _, dup := out.Ports[n]; dup {
			c.fail(CodeDuplicatePort, pth+".port.number", strconv.Itoa(int(n)), "the port has settings twice", "keep one of them")
		}
		if out.Ports == nil {
			out.Ports = map[uint16]model.TrafficPolicy{}
		}
		out.Ports[n] = model.TrafficPolicy{LB: c.loadBalancer(pth+".loadBalancer", pp.LoadBalancer), Pool: c.connectionPool(pth+".connectionPool", pp.ConnectionPool),
			Outlier: c.outlier(pth+".outlierDetection", pp.OutlierDetection), TLS: c.clientTLS(pth+".tls", pp.Tls)}
	}
	return out
}

func (c *conv) percentValue(path string, v *wrapperspb.DoubleValue, def float64) float64 {
	if v == nil {
		return def
	}
	if v.Value < 0 || v.Value > 100 {
		c.fail(CodeInvalidValue, path, strconv.FormatFloat(v.Value, 'g', -1, 64), "a percentage is from 0 to 100", "use 0 to 100")
	}
	return v.Value
}

func (c *conv) loadBalancer(path string, lb *networking.LoadBalancerSettings) *model.LoadBalancer {
	if lb == nil {
		return nil
	}
	out := &model.LoadBalancer{Policy: model.LBLeastRequest}
	switch p := lb.LbPolicy.(type) {
	case *networking.LoadBalancerSettings_Simple:
		c.simpleLB(path+".simple", p.Simple, out)
	case *networking.LoadBalancerSettings_ConsistentHash:
		out.Policy, out.Hash = model.LBConsistent, c.consistentHash(path+".consistentHash", p.ConsistentHash)
	}
	out.Locality = c.localityLB(path+".localityLbSetting", lb.LocalityLbSetting)
	return out
}

func (c *conv) simpleLB(path string, p networking.LoadBalancerSettings_SimpleLB, out *model.LoadBalancer) {
	switch p {
	case networking.LoadBalancerSettings_UNSPECIFIED, networking.LoadBalancerSettings_LEAST_REQUEST:
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		out.Policy = model.LBRoundRobin
	case networking.LoadBalancerSettings_RANDOM:
		out.Policy = model.LBRandom
	case networking.LoadBalancerSettings_PASSTHROUGH:
		out.Policy = model.LBPassthrough
	default:
		c.fail(CodeDeprecatedField, path, p.String(), "the policy is deprecated and not supported", "use LEAST_REQUEST")
	}
}

func (c *conv) consistentHash(path string, h *networking.LoadBalancerSettings_ConsistentHashLB) *model.ConsistentHash {
	out := &model.ConsistentHash{MinRing: 1024, Table: 65537}
	switch k := h.HashKey.(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		if !isHeaderName(k.HttpHeaderName) {
			c.fail(CodeInvalidName, path+".httpHeaderName", k.HttpHeaderName, "this is not a header name", "use letters, digits and '-'")
		}
		out.Header = k.HttpHeaderName
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		out.Cookie = c.hashCookie(path+".httpCookie", k.HttpCookie)
	case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if !k.UseSourceIp {
			c.fail(CodeInvalidValue, path+".useSourceIp", "false", "consistentHash hashes nothing", "set it to true, or use another key")
		}
		out.SourceIP = true
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if k.HttpQueryParameterName == "" {
			c.missing(path+".httpQueryParameterName", "name the query parameter")
		}
		out.Query = k.HttpQueryParameterName
	default:
		c.fail(CodeMissingField, path, "", "consistentHash hashes nothing", "add httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName")
	}
	switch a := h.HashAlgorithm.(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_RingHash_:
		if a.RingHash.MinimumRingSize > 0 {
			out.MinRing = a.RingHash.MinimumRingSize
		}
		const maxRing = 8 << 20 // Envoy's limit
		if out.MinRing > maxRing {
			c.fail(CodeInvalidValue, path+".ringHash.minimumRingSize", strconv.FormatUint(out.MinRing, 10), "the ring is too large", fmt.Sprintf("at most %d", maxRing))
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_Maglev:
		out.Maglev = true
		if a.Maglev.TableSize > 0 {
			out.Table = a.Maglev.TableSize
		}
		const maxTable = 5_000_011 // Envoy's limit
		if out.Table > maxTable || !isPrime(out.Table) {
			c.fail(CodeInvalidValue, path+".maglev.tableSize", strconv.FormatUint(out.Table, 10), "the table size must be a prime number", fmt.Sprintf("at most %d; the default is 65537", maxTable))
		}
	}
	return out
}

func isPrime(n uint64) bool {
	if n < 2 {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func (c *conv) hashCookie(path string, k *networking.LoadBalancerSettings_ConsistentHashLB_HTTPCookie) *model.HashCookie {
	out := &model.HashCookie{Name: k.GetName(), Path: k.GetPath()}
	if out.Name == "" {
		c.missing(path+".name", "name the cookie")
	} else if !isHeaderName(out.Name) {
		c.fail(CodeInvalidName, path+".name", out.Name, "this is not a cookie name", "use letters, digits and '-'")
	}
	if ttl := k.GetTtl(); ttl != nil {
		d := ttl.AsDuration() // 0 makes a session cookie
		out.TTL = &d
	}
	for i, a := range k.GetAttributes() {
		p := idx(path+".attributes", i)
		if !isHeaderName(a.Name) || strings.ContainsAny(a.Value, ";,\r\n") {
			c.fail(CodeInvalidValue, p, a.Name+"="+a.Value, "this is not a cookie attribute", "write name: SameSite and value: Strict, for example")
		}
		out.Attributes = append(out.Attributes, [2]string{a.Name, a.Value})
	}
	return out
}

func (c *conv) connectionPool(path string, p *networking.ConnectionPoolSettings) *model.ConnectionPool {
	if p == nil {
		return nil
	}
	if p.Tcp == nil && p.Http == nil {
		c.fail(CodeMissingField, path, "", "the connection pool has no settings", "add tcp or http")
	}
	out := &model.ConnectionPool{}
	if t := p.Tcp; t != nil {
		pt := path + ".tcp"
		out.MaxConnections = c.count(pt+".maxConnections", t.MaxConnections)
		out.ConnectTimeout = c.durationOrZero(pt+".connectTimeout", t.ConnectTimeout)
		out.MaxConnDuration = c.durationOrZero(pt+".maxConnectionDuration", t.MaxConnectionDuration)
		out.TCPIdleTimeout = c.durationOrZero(pt+".idleTimeout", t.IdleTimeout)
		if k := t.TcpKeepalive; k != nil {
			out.Keepalive = &model.Keepalive{Probes: k.Probes, Time: c.seconds(pt+".tcpKeepalive.time", c.durationOrZero(pt+".tcpKeepalive.time", k.Time)),
				Interval: c.seconds(pt+".tcpKeepalive.interval", c.durationOrZero(pt+".tcpKeepalive.interval", k.Interval))}
		}
	}
	if h := p.Http; h != nil {
		ph := path + ".http"
		out.MaxPending = c.count(ph+".http1MaxPendingRequests", h.Http1MaxPendingRequests)
		out.MaxRequests = c.count(ph+".http2MaxRequests", h.Http2MaxRequests)
		out.MaxRequestsPerConn = c.count(ph+".maxRequestsPerConnection", h.MaxRequestsPerConnection)
		out.MaxRetries = c.count(ph+".maxRetries", h.MaxRetries)
		out.HTTPIdleTimeout = c.durationOrZero(ph+".idleTimeout", h.IdleTimeout)
		out.MaxConcurrentStreams = c.count(ph+".maxConcurrentStreams", h.MaxConcurrentStreams)
		if c.o.Has(ph + ".h2UpgradePolicy") {
			out.H2Upgrade = h.H2UpgradePolicy.String()
		}
		out.UseClientProtocol = h.UseClientProtocol
		if h.UseClientProtocol && h.H2UpgradePolicy == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE {
			c.fail(CodeExclusive, ph+".useClientProtocol", "true", "useClientProtocol and h2UpgradePolicy: UPGRADE exclude each other", "keep one of them")
		}
	}
	return out
}

// seconds refuses what the kernel cannot keep: keepalive times are whole seconds.
func (c *conv) seconds(path string, d time.Duration) time.Duration {
	if d%time.Second != 0 {
		c.fail(CodeInvalidDuration, path, d.String(), "keepalive times are whole seconds", "did you mean "+d.Round(time.Second).String()+"?")
	}
	return d
}

func (c *conv) outlier(path string, o *networking.OutlierDetection) *model.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &model.OutlierDetection{Consecutive5xx: 5, Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjectionPercent: 10,
		SplitLocal: o.SplitExternalLocalOriginErrors}
	if o.SplitExternalLocalOriginErrors {
		out.ConsecutiveLocal = 5
	}
	if v := o.Consecutive_5XxErrors; v != nil {
		out.Consecutive5xx = v.Value
	}
	if v := o.ConsecutiveGatewayErrors; v != nil {
		out.ConsecutiveGateway = v.Value
	}
	if v := o.ConsecutiveLocalOriginFailures; v != nil {
		out.ConsecutiveLocal = v.Value
		if !o.SplitExternalLocalOriginErrors {
			c.fail(CodeInvalidValue, path+".consecutiveLocalOriginFailures", strconv.FormatUint(uint64(v.Value), 10),
				"the field has no effect while local failures are counted as 5xx", "set splitExternalLocalOriginErrors: true")
		}
	}
	if o.Interval != nil {
		out.Interval = c.duration(path+".interval", o.Interval)
	}
	if o.BaseEjectionTime != nil {
		out.BaseEjection = c.duration(path+".baseEjectionTime", o.BaseEjectionTime)
	}
	if c.o.Has(path + ".maxEjectionPercent") {
		out.MaxEjectionPercent = c.wholePercent(path+".maxEjectionPercent", o.MaxEjectionPercent)
	}
	out.MinHealthPercent = c.wholePercent(path+".minHealthPercent", o.MinHealthPercent)
	return out
}

func (c *conv) wholePercent(path string, n int32) uint32 {
	if n < 0 || n > 100 {
		c.fail(CodeInvalidValue, path, strconv.Itoa(int(n)), "a percentage is from 0 to 100", "use 0 to 100")
		return 0
	}
	return uint32(n)
}

func (c *conv) clientTLS(path string, t *networking.ClientTLSSettings) *model.ClientTLS {
	if t == nil {
		return nil
	}
	out := &model.ClientTLS{Mode: t.Mode.String(), CertFile: t.ClientCertificate, KeyFile: t.PrivateKey, CAFile: t.CaCertificates,
		SANs: t.SubjectAltNames, SNI: t.Sni, Insecure: t.InsecureSkipVerify.GetValue()}
	files := []struct{ name, val string }{{"clientCertificate", t.ClientCertificate}, {"privateKey", t.PrivateKey}, {"caCertificates", t.CaCertificates}}
	for i, f := range files {
		p := path + "." + f.name
		switch {
		case t.CredentialName != "" && f.val != "":
			c.fail(CodeExclusive, p, f.val, f.name+" and a Secret for the same", "keep one of them")
		case out.Mode == model.TLSMutual && f.val == "" && i < 2 && t.CredentialName == "":
			c.missing(p, "mode MUTUAL needs clientCertificate and privateKey, or credentialName")
		case f.val == "":
		case out.Mode == model.TLSDisable || out.Mode == model.TLSIstioMutual:
			c.fail(CodeExclusive, p, f.val, "mode "+out.Mode+" takes no "+f.name, "remove it, or use mode MUTUAL")
		case out.Mode == model.TLSSimple && i < 2:
			c.fail(CodeExclusive, p, f.val, "mode SIMPLE presents no certificate", "use mode MUTUAL")
		}
	}
	c.clientCredential(path+".credentialName", t, out)
	if out.Insecure && (out.Mode == model.TLSIstioMutual || out.Mode == model.TLSDisable) {
		c.fail(CodeExclusive, path+".insecureSkipVerify", "true", "mode "+out.Mode+" takes no insecureSkipVerify", "remove it")
	}
	if out.Insecure && (len(t.SubjectAltNames) > 0 || t.CaCertificates != "") {
		c.fail(CodeExclusive, path+".insecureSkipVerify", "true", "insecureSkipVerify would ignore subjectAltNames and caCertificates", "remove one of them")
	}
	if out.Mode == model.TLSDisable && (t.Sni != "" || len(t.SubjectAltNames) > 0) {
		c.fail(CodeExclusive, path+".mode", out.Mode, "mode DISABLE takes no sni or subjectAltNames", "use mode SIMPLE")
	}
	return out
}
