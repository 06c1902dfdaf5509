package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"weft.mesh/weft/proxy/admin"
	"weft.mesh/weft/proxy/server"
)

// Files that the injected pod template puts in place, at Istio's paths.
const (
	fileToken  = "var/run/secrets/tokens/istio-token"
	fileRoot   = "var/run/secrets/istio/root-cert.pem"
	fileLabels = "etc/istio/pod/labels"
)

// defaultControlPlane is where a proxy in a pod looks for the control plane if nothing else is said.
const defaultControlPlane = "weft.weft-system.svc:15012"

// Bounds of what a pod's environment may hold.
const (
	maxLabelsFile  = 256 << 10
	maxMetadata    = 128
	metadataPrefix = "ISTIO_META_"
)

// untilKilled is the drain time of a proxy that is to end when its last connection does: kubelet ends the wait.
const untilKilled = 24 * time.Hour

// podSettings are what a pod's environment says beyond the flags' defaults.
type podSettings struct {
	metadata map[string]string
	labels   map[string]string
	probes   map[string]admin.AppProbe
	minDrain time.Duration
	in       bool // in a Kubernetes pod
	// resolvConf is the file with the pod's name servers, if the proxy answers the pod's DNS queries; "": it does not.
	resolvConf string
}

// readPod takes from the environment of a pod what the user did not say by flags. set tells which flags were.
// root is the file system; "/" but for tests.
func (o *options) readPod(env getenv, environ []string, set func(flag string) bool, root string) (p podSettings, err error) {
	if p.metadata, err = metadata(environ); err != nil {
		return p, err
	}
	if p.probes, err = admin.ParseAppProbes(env("ISTIO_KUBE_APP_PROBERS")); err != nil {
		return p, fmt.Errorf("ISTIO_KUBE_APP_PROBERS: %w", err)
	}
	if o.appMetrics == "" {
		if o.appMetrics, err = appMetrics(env("ISTIO_PROMETHEUS_ANNOTATIONS"), o.statusPort); err != nil {
			return p, fmt.Errorf("ISTIO_PROMETHEUS_ANNOTATIONS: %w", err)
		}
	}
	p.in = env("KUBERNETES_SERVICE_HOST") != "" && env("POD_NAME") != ""
	conf, err := parseProxyConfig(env("PROXY_CONFIG"))
	if err != nil {
		return p, fmt.Errorf("PROXY_CONFIG: %w", err)
	}
	for k, v := range conf.metadata {
		if _, ok := p.metadata[k]; !ok {
			p.metadata[k] = v
		}
	}
	o.apply(conf, set)
	if !p.in {
		return p, nil
	}
	return p, o.inPod(&p, env, set, root)
}

// apply puts the proxy configuration in the place of flags that were not given.
func (o *options) apply(c proxyConfig, set func(string) bool) {
	def(set, "xds", &o.xds, c.discoveryAddress)
	def(set, "concurrency", &o.concurrency, c.concurrency)
	def(set, "admin-port", &o.adminPort, c.proxyAdminPort)
	def(set, "status-port", &o.statusPort, c.statusPort)
	def(set, "drain-duration", &o.drain, c.terminationDrain)
	def(set, "parent-drain-duration", &o.parentDrain, c.drain)
	o.parentShutdown = max(o.parentShutdown, o.parentDrain)
}

// def sets a flag's value unless the user did or there is none to set.
func def[T comparable](set func(string) bool, flag string, to *T, v T) {
	var none T
	if v != none && !set(flag) {
		*to = v
	}
}

// inPod fills in what is the same in every injected pod.
func (o *options) inPod(p *podSettings, env getenv, set func(string) bool, root string) (err error) {
	def(set, "ip", &o.ip, instanceIP(env("INSTANCE_IPS"), o.ip))
	def(set, "trust-domain", &o.trustDomain, env("TRUST_DOMAIN"))
	def(set, "cluster", &o.cluster, p.metadata["CLUSTER_ID"])
	def(set, "workload", &o.workload, p.metadata["WORKLOAD_NAME"])
	if o.xds == "" {
		o.xds = defaultControlPlane
	}
	def(set, "ca-root", &o.caRoot, or(env("XDS_ROOT_CA"), or(env("CA_ROOT_CA"), root+fileRoot)))
	if path := root + fileToken; o.tokenFile == "" && exists(path) {
		o.tokenFile = path
	}
	if v := env("INSTANCE_IPS"); v != "" {
		p.metadata["INSTANCE_IPS"] = v
	}
	if mode := p.metadata["INTERCEPTION_MODE"]; mode != "" && mode != "REDIRECT" {
		return fmt.Errorf("ISTIO_META_INTERCEPTION_MODE %q: only REDIRECT is supported", mode)
	}
	names, err := namesFromEnvironment(p.metadata)
	if err != nil {
		return err
	}
	if names {
		p.resolvConf = root + fileResolvConf
	}
	if p.labels, err = labelsFile(root + fileLabels); err != nil {
		return err
	}
	return o.drainTimes(p, env, set)
}

// drainTimes are Istio's: without EXIT_ON_ZERO_ACTIVE_CONNECTIONS a proxy stays for the whole of its
// drain time, because the application beside it may still have calls to make; with it, for
// MINIMUM_DRAIN_DURATION and until the last connection ended.
func (o *options) drainTimes(p *podSettings, env getenv, set func(string) bool) error {
	if v := env("TERMINATION_DRAIN_DURATION_SECONDS"); v != "" {
		n, err := strconv.ParseUint(v, 10, 20)
		if err != nil {
			return fmt.Errorf("TERMINATION_DRAIN_DURATION_SECONDS %q: want a number of seconds", v)
		}
		def(set, "drain-duration", &o.drain, time.Duration(n)*time.Second)
	}
	exit := false
	if v := env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS"); v != "" {
		var err error
		if exit, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("EXIT_ON_ZERO_ACTIVE_CONNECTIONS %q: want true or false", v)
		}
	}
	least := o.drain
	if exit {
		least = server.DefaultDrain
		def(set, "drain-duration", &o.drain, untilKilled)
	}
	if v := env("MINIMUM_DRAIN_DURATION"); v != "" && exit {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return fmt.Errorf("MINIMUM_DRAIN_DURATION %q: want a duration like 5s", v)
		}
		least = d
	}
	if !set("min-drain-duration") {
		o.minDrain = least
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// instanceIP is the pod's IPv4 address if it has one, else its first.
func instanceIP(list, ip string) string {
	for s := range strings.SplitSeq(list, ",") {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			return s
		}
	}
	if first, _, _ := strings.Cut(list, ","); ip == "" {
		return first
	}
	return ip
}

// metadata are the variables ISTIO_META_*, by the name without the prefix.
func metadata(environ []string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		name, ok := strings.CutPrefix(k, metadataPrefix)
		if !ok || name == "" {
			continue
		}
		if len(out) == maxMetadata {
			return nil, fmt.Errorf("more than %d variables ISTIO_META_*", maxMetadata)
		}
		out[name] = v
	}
	return out, nil
}

// labelsFile reads the pod's labels as the downward API writes them: key="value" lines, values quoted as Go does.
func labelsFile(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("labels of the pod: %w", err)
	}
	defer f.Close()
	out := map[string]string{}
	sc := bufio.NewScanner(io.LimitReader(f, maxLabelsFile))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" {
			continue
		}
		k, quoted, ok := strings.Cut(line, "=")
		v, err := strconv.Unquote(quoted)
		if !ok || err != nil || k == "" {
			return nil, fmt.Errorf("labels of the pod: %s: line %q: want key=\"value\"", path, line)
		}
		out[k] = v
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("labels of the pod: %s: %w", path, err)
	}
	return out, nil
}

// appMetrics is where the application's metrics are by its prometheus.io annotations; "" if it has none.
func appMetrics(text string, statusPort int) (string, error) {
	if text == "" {
		return "", nil
	}
	var a struct{ Scrape, Path, Port string }
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return "", err
	}
	if a.Scrape != "" && a.Scrape != "true" {
		return "", nil
	}
	port, path := or(a.Port, "80"), "/"+strings.TrimPrefix(or(a.Path, "/metrics"), "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("port %q: want a number from 1 to 65535", port)
	}
	if int(n) == statusPort {
		return "", fmt.Errorf("port %s is the proxy's own: it would ask itself for ever", port)
	}
	return "http://" + net.JoinHostPort("localhost", port) + path, nil
}
