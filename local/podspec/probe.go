package podspec

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe reads one probe and fills in Kubernetes' defaults. Startup and liveness
// probes must have a success threshold of 1 (oneSuccess).
func (p *parser) probe(path string, c *corev1.Probe, ports []Port, oneSuccess bool) *Probe {
	if c == nil {
		return nil
	}
	out := &Probe{
		InitialDelay:     p.seconds(path+".initialDelaySeconds", c.InitialDelaySeconds, 0),
		Period:           p.seconds(path+".periodSeconds", c.PeriodSeconds, 10),
		Timeout:          p.seconds(path+".timeoutSeconds", c.TimeoutSeconds, 1),
		SuccessThreshold: p.count(path+".successThreshold", c.SuccessThreshold, 1),
		FailureThreshold: p.count(path+".failureThreshold", c.FailureThreshold, 3),
	}
	if oneSuccess && out.SuccessThreshold != 1 {
		p.fail(path+".successThreshold", fmt.Sprint(c.SuccessThreshold), "must be 1 for a startup or liveness probe", "remove it")
	}
	handlers := 0
	if h := c.HTTPGet; h != nil {
		handlers++
		out.HTTP = p.httpProbe(path+".httpGet", h, ports)
	}
	if h := c.TCPSocket; h != nil {
		handlers++
		out.TCP = &TCPProbe{Host: h.Host, Port: p.probePort(path+".tcpSocket.port", h.Port, ports)}
	}
	if h := c.Exec; h != nil {
		handlers++
		if out.Command = h.Command; len(h.Command) == 0 {
			p.fail(path+".exec.command", "", "must be set", "name the program to run")
		}
	}
	if h := c.GRPC; h != nil {
		handlers++
		out.GRPC = &GRPCProbe{Port: p.probePort(path+".grpc.port", intstr.FromInt32(h.Port), ports)}
		if h.Service != nil {
			out.GRPC.Service = *h.Service
		}
	}
	if handlers != 1 {
		p.fail(path, "", fmt.Sprintf("has %d handlers", handlers), "use exactly one of httpGet, tcpSocket, exec, grpc")
	}
	return out
}

func (p *parser) httpProbe(path string, h *corev1.HTTPGetAction, ports []Port) *HTTPProbe {
	out := &HTTPProbe{Host: h.Host, Port: p.probePort(path+".port", h.Port, ports), Path: h.Path}
	if !strings.HasPrefix(out.Path, "/") {
		out.Path = "/" + out.Path
	}
	switch h.Scheme {
	case "", corev1.URISchemeHTTP:
	case corev1.URISchemeHTTPS:
		out.HTTPS = true
	default:
		p.fail(path+".scheme", string(h.Scheme), "is not supported", "use HTTP or HTTPS")
	}
	for _, header := range h.HTTPHeaders {
		out.Headers = append(out.Headers, [2]string{header.Name, header.Value})
	}
	return out
}

func (p *parser) probePort(path string, v intstr.IntOrString, ports []Port) uint16 {
	if v.Type == intstr.String {
		for _, port := range ports {
			if port.Name == v.StrVal {
				return port.Port
			}
		}
		p.fail(path, v.StrVal, "is not the name of a port of this container", "declare it in ports, or use the number")
		return 0
	}
	if v.IntVal < 1 || v.IntVal > 65535 {
		p.fail(path, v.String(), "is not a port", "use 1 to 65535, or the name of a port")
		return 0
	}
	return uint16(v.IntVal)
}

func (p *parser) seconds(path string, v int32, otherwise int) time.Duration {
	return time.Duration(p.count(path, v, otherwise)) * time.Second
}

func (p *parser) count(path string, v int32, otherwise int) int {
	if v < 0 {
		p.fail(path, fmt.Sprint(v), "is negative", "")
		return otherwise
	}
	if v == 0 {
		return otherwise
	}
	return int(v)
}
