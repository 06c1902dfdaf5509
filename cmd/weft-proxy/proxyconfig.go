package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxProxyConfig bounds PROXY_CONFIG in bytes.
const maxProxyConfig = 64 << 10

// proxyConfig is what a proxy takes from Istio's ProxyConfig.
type proxyConfig struct {
	discoveryAddress           string
	concurrency                int
	proxyAdminPort, statusPort int
	drain, terminationDrain    time.Duration
	metadata                   map[string]string
}

// elsewhere are fields that somebody else honours: the injection webhook, or the control plane, which reads the
// pod's annotation proxy.istio.io/config.
var elsewhere = []string{"gatewayTopology", "holdApplicationUntilProxyStarts", "image", "interceptionMode"}

// without are fields that Istio's default configuration always has and that mean nothing to weft-proxy: paths of
// Envoy's files, how long its stats' names may be, and the only authentication that there is.
var without = []string{"configPath", "binaryPath", "serviceCluster", "controlPlaneAuthPolicy", "statNameLength"}

// parseProxyConfig reads PROXY_CONFIG, YAML or JSON. A field that is not honoured is an error that names it.
func parseProxyConfig(text string) (proxyConfig, error) {
	c := proxyConfig{metadata: map[string]string{}}
	if len(text) > maxProxyConfig {
		return c, fmt.Errorf("%d bytes: at most %d", len(text), maxProxyConfig)
	}
	var raw map[string]yaml.Node
	if err := yaml.Unmarshal([]byte(text), &raw); err != nil {
		return c, fmt.Errorf("no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	for _, field := range slices.Sorted(maps.Keys(raw)) {
		n := raw[field]
		if err := c.set(field, &n); err != nil {
			return c, fmt.Errorf("%s: %w", field, err)
		}
	}
	return c, nil
}

func (c *proxyConfig) set(field string, n *yaml.Node) (err error) {
	switch field {
	case "discoveryAddress":
		return n.Decode(&c.discoveryAddress)
	case "concurrency":
		err = n.Decode(&c.concurrency)
		return bounded(err, c.concurrency, 0, 1024)
	case "proxyAdminPort":
		err = n.Decode(&c.proxyAdminPort)
		return bounded(err, c.proxyAdminPort, 1, 65535)
	case "statusPort":
		err = n.Decode(&c.statusPort)
		return bounded(err, c.statusPort, 1, 65535)
	case "drainDuration":
		c.drain, err = duration(n)
	case "terminationDrainDuration":
		c.terminationDrain, err = duration(n)
	case "meshId":
		var id string
		err = n.Decode(&id)
		c.metadata["MESH_ID"] = id
	case "proxyMetadata":
		err = c.proxyMetadata(n)
	default:
		if !slices.Contains(elsewhere, field) && !slices.Contains(without, field) {
			return errors.New("not supported by weft-proxy; remove it")
		}
	}
	return err
}

// proxyMetadata is set as the environment of the container by the injection webhook; what is for the
// node's metadata counts here too, for proxies that were not injected.
func (c *proxyConfig) proxyMetadata(n *yaml.Node) error {
	var m map[string]string
	if err := n.Decode(&m); err != nil {
		return err
	}
	for k, v := range m {
		if name, ok := strings.CutPrefix(k, metadataPrefix); ok {
			c.metadata[name] = v
		}
	}
	return nil
}

func bounded(err error, n, least, most int) error {
	if err == nil && (n < least || n > most) {
		err = fmt.Errorf("%d: want %d to %d", n, least, most)
	}
	return err
}

func duration(n *yaml.Node) (time.Duration, error) {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q: want a duration like 5s", n.Value)
	}
	return d, nil
}
