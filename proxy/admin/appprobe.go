package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// AppProbe is a probe or lifecycle handler of a container whose kubelet calls us instead: behind the
// proxy it would meet mTLS. Exactly one of HTTP, TCP and GRPC is set.
type AppProbe struct {
	HTTP *AppHTTP
	TCP  *AppTCP
	GRPC *AppGRPC
	// Timeout of the call; zero: as long as the caller waits.
	Timeout time.Duration
}

// AppHTTP is Kubernetes' httpGet.
type AppHTTP struct {
	HTTPS   bool // certificates are not verified, as kubelet does not
	Port    uint16
	Path    string      // may have a query
	Headers [][2]string // Host among them replaces the address
}

// AppTCP is Kubernetes' tcpSocket.
type AppTCP struct{ Port uint16 }

// AppGRPC is Kubernetes' grpc.
type AppGRPC struct {
	Port    uint16
	Service string
}

// Bounds of what [ParseAppProbes] takes.
const (
	maxAppProbes      = 256
	maxAppProbesBytes = 256 << 10
	defaultAppTimeout = time.Second // Kubernetes' timeoutSeconds
)

// appProbePath is every path that a rewritten probe may have (Istio's).
var appProbePath = regexp.MustCompile(`^(/app-health/[a-z0-9]([-a-z0-9]*[a-z0-9])?/(readyz|livez|startupz)|/app-lifecycle/[a-z0-9]([-a-z0-9]*[a-z0-9])?/(poststartz|prestopz))$`)

// jsonProbe is a probe as Istio's injector writes it in ISTIO_KUBE_APP_PROBERS.
type jsonProbe struct {
	HTTPGet *struct {
		Path        string          `json:"path"`
		Port        json.RawMessage `json:"port"`
		Host        string          `json:"host"`
		Scheme      string          `json:"scheme"`
		HTTPHeaders []struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		} `json:"httpHeaders"`
	} `json:"httpGet"`
	TCPSocket *struct {
		Port json.RawMessage `json:"port"`
		Host string          `json:"host"`
	} `json:"tcpSocket"`
	GRPC *struct {
		Port    json.RawMessage `json:"port"`
		Service *string         `json:"service"`
	} `json:"grpc"`
	TimeoutSeconds int `json:"timeoutSeconds"`
}

// ParseAppProbes reads ISTIO_KUBE_APP_PROBERS: probes by path, as JSON. Empty text is none.
func ParseAppProbes(text string) (map[string]AppProbe, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxAppProbesBytes {
		return nil, fmt.Errorf("app probes: %d bytes: at most %d", len(text), maxAppProbesBytes)
	}
	var raw map[string]jsonProbe
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		return nil, fmt.Errorf("app probes: %w", err)
	}
	if d.More() || d.InputOffset() < int64(len(strings.TrimRight(text, " \t\r\n"))) {
		return nil, errors.New("app probes: something follows the JSON object")
	}
	if len(raw) > maxAppProbes {
		return nil, fmt.Errorf("app probes: %d: at most %d", len(raw), maxAppProbes)
	}
	out := make(map[string]AppProbe, len(raw))
	for path, r := range raw {
		if !appProbePath.MatchString(path) {
			return nil, fmt.Errorf("app probes: path %q: want /app-health/CONTAINER/readyz, livez or startupz, or /app-lifecycle/CONTAINER/poststartz or prestopz", path)
		}
		p, err := r.probe(strings.HasPrefix(path, "/app-lifecycle/"))
		if err != nil {
			return nil, fmt.Errorf("app probes: %s: %w", path, err)
		}
		out[path] = p
	}
	return out, nil
}

func (r jsonProbe) probe(lifecycle bool) (p AppProbe, err error) {
	if r.TimeoutSeconds < 0 {
		return p, fmt.Errorf("timeoutSeconds %d: want 0 or more", r.TimeoutSeconds)
	}
	p.Timeout = time.Duration(r.TimeoutSeconds) * time.Second
	if p.Timeout == 0 && !lifecycle {
		p.Timeout = defaultAppTimeout
	}
	n := 0
	if g := r.HTTPGet; g != nil {
		n++
		if p.HTTP, err = r.http(); err != nil {
			return p, err
		}
	}
	if g := r.TCPSocket; g != nil {
		n++
		p.TCP = &AppTCP{}
		if p.TCP.Port, err = probePort(g.Port, g.Host); err != nil {
			return p, err
		}
	}
	if g := r.GRPC; g != nil {
		n++
		p.GRPC = &AppGRPC{}
		if g.Service != nil {
			p.GRPC.Service = *g.Service
		}
		if p.GRPC.Port, err = probePort(g.Port, ""); err != nil {
			return p, err
		}
	}
	if n != 1 {
		return p, errors.New("want exactly one of httpGet, tcpSocket and grpc")
	}
	return p, nil
}

func (r jsonProbe) http() (*AppHTTP, error) {
	g := r.HTTPGet
	h := &AppHTTP{Path: g.Path}
	switch strings.ToUpper(g.Scheme) {
	case "", "HTTP":
	case "HTTPS":
		h.HTTPS = true
	default:
		return nil, fmt.Errorf("scheme %q: want HTTP or HTTPS", g.Scheme)
	}
	for _, x := range g.HTTPHeaders {
		h.Headers = append(h.Headers, [2]string{x.Name, x.Value})
	}
	var err error
	h.Port, err = probePort(g.Port, g.Host)
	return h, err
}

// probePort reads a port, as a number or as digits, of this pod: a host must be one of its own names.
func probePort(raw json.RawMessage, host string) (uint16, error) {
	if host != "" && host != "localhost" {
		if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
			return 0, fmt.Errorf("host %q: only the pod itself is probed", host)
		}
	}
	var n uint16
	text := strings.Trim(string(raw), `"`)
	if err := json.Unmarshal([]byte(text), &n); err != nil || n == 0 {
		return 0, fmt.Errorf("port %s: want a number from 1 to 65535", raw)
	}
	return n, nil
}
