package main

import (
	"fmt"
	"strconv"
	"strings"
)

// size is how large a mesh is.
type size struct {
	Services   int `json:"services"`
	Endpoints  int `json:"endpoints"` // pods, spread evenly over the services
	Proxies    int `json:"proxies"`   // of them with a connected sidecar
	Namespaces int `json:"namespaces"`
	Routes     int `json:"virtual_services"`
}

// parseSize reads services x endpoints x proxies.
func parseSize(text string, namespaces int) (size, error) {
	var n []int
	for part := range strings.SplitSeq(text, "x") {
		i, err := strconv.Atoi(part)
		if err != nil || i <= 0 {
			return size{}, fmt.Errorf("size %q: want SERVICESxENDPOINTSxPROXIES, all above 0", text)
		}
		n = append(n, i)
	}
	if len(n) != 3 || n[1] < n[0] || n[2] > n[1] {
		return size{}, fmt.Errorf("size %q: want SERVICESxENDPOINTSxPROXIES, with an endpoint or more for each service and at most a proxy for each endpoint", text)
	}
	return size{Services: n[0], Endpoints: n[1], Proxies: n[2], Namespaces: min(namespaces, n[0]), Routes: max(1, n[0]/10)}, nil
}

func (s size) String() string { return fmt.Sprintf("%dx%dx%d", s.Services, s.Endpoints, s.Proxies) }

// pod is one endpoint of a service.
type pod struct{ service, index int }

func (s size) namespace(service int) string { return fmt.Sprintf("scale-%d", service%s.Namespaces) }

func serviceName(service int) string { return fmt.Sprintf("svc-%d", service) }

func (s size) host(service int) string {
	return serviceName(service) + "." + s.namespace(service) + ".svc.cluster.local"
}

// replicas is how many endpoints a service has.
func (s size) replicas(service int) int {
	n := s.Endpoints / s.Services
	if service < s.Endpoints%s.Services {
		n++
	}
	return n
}

// pods lists all endpoints; the first Proxies of them are connected, spread over all services.
func (s size) pods() []pod {
	out := make([]pod, 0, s.Endpoints)
	for i := range s.Endpoints {
		out = append(out, pod{i % s.Services, i / s.Services})
	}
	return out
}

func (p pod) name() string { return fmt.Sprintf("%s-%d", serviceName(p.service), p.index) }

// address is unique for up to 65,536 services of up to 250 endpoints.
func (p pod) address() string {
	return fmt.Sprintf("10.%d.%d.%d", p.service>>8, p.service&255, p.index+1)
}

func (p pod) node() string { return fmt.Sprintf("node-%d", (p.service+p.index)%nodes) }

// nodes is how many nodes there are, in three zones.
const nodes = 12

type object map[string]any

func meta(namespace, name string, more object) object {
	m := object{"name": name}
	if namespace != "" {
		m["namespace"] = namespace
	}
	for k, v := range more {
		m[k] = v
	}
	return m
}

func (s size) serviceObject(service int) object {
	return object{"apiVersion": "v1", "kind": "Service", "metadata": meta(s.namespace(service), serviceName(service), nil),
		"spec": object{"selector": object{"app": serviceName(service)}, "ports": []any{object{"name": "http", "port": 80, "targetPort": 8080}}}}
}

func (s size) podObject(p pod) object {
	return object{"apiVersion": "v1", "kind": "Pod",
		"metadata": meta(s.namespace(p.service), p.name(), object{"labels": object{"app": serviceName(p.service), "version": "v1"}, "annotations": object{"sidecar.istio.io/status": "{}"}}),
		"spec": object{"nodeName": p.node(), "serviceAccountName": serviceName(p.service), "automountServiceAccountToken": false, "containers": []any{
			object{"name": "app", "image": "app", "ports": []any{object{"containerPort": 8080}}}, object{"name": "istio-proxy", "image": "weft/proxy"}}}}
}

func podStatus(p pod) object {
	return object{"status": object{"phase": "Running", "podIP": p.address(), "podIPs": []any{object{"ip": p.address()}},
		"conditions": []any{object{"type": "Ready", "status": "True"}}}}
}

func (s size) sliceObject(service int) object {
	var eps []any
	for i := range s.replicas(service) {
		p := pod{service, i}
		eps = append(eps, object{"addresses": []any{p.address()}, "conditions": object{"ready": true, "serving": true, "terminating": false}, "nodeName": p.node(),
			"targetRef": object{"kind": "Pod", "namespace": s.namespace(service), "name": p.name()}})
	}
	return object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata":    meta(s.namespace(service), serviceName(service), object{"labels": object{"kubernetes.io/service-name": serviceName(service)}}),
		"addressType": "IPv4", "endpoints": eps, "ports": []any{object{"name": "http", "port": 8080, "protocol": "TCP"}}}
}

// routeObject is a VirtualService; service must be below Routes.
func (s size) routeObject(service int, timeout string) object {
	return object{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta(s.namespace(service), serviceName(service), nil),
		"spec": object{"hosts": []any{serviceName(service)}, "http": []any{object{"timeout": timeout, "retries": object{"attempts": 2},
			"route": []any{object{"destination": object{"host": serviceName(service)}}}}}}}
}

func nodeObject(i int) object {
	return object{"apiVersion": "v1", "kind": "Node", "metadata": meta("", fmt.Sprintf("node-%d", i), object{"labels": object{
		"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": fmt.Sprintf("z%d", i%3)}})}
}
