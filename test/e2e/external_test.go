package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/api/admin"
)

// podIP is the address of a Deployment's pod.
func (m *mesh) podIP(ns, deployment string) string {
	m.t.Helper()
	var list admin.PodList
	if err := json.Unmarshal([]byte(m.must("ps", "-n", ns, "-o", "json")), &list); err != nil {
		m.t.Fatal(err)
	}
	for _, p := range list.Items {
		if p.Deployment == deployment {
			return p.IP
		}
	}
	m.t.Fatalf("no pod of %s/%s", ns, deployment)
	return ""
}

// Two web servers without a sidecar are the world outside. ServiceEntries give
// them names, and no addresses: what a name resolves to is told to captured
// programs only, and tells TCP services of one port apart.
func TestExternalHostsWithoutAddressesAreReachedByName(t *testing.T) {
	requireProgram(t, "curl", "python3", "getent")
	e := newEnv(t)
	requireNamespaces(t, e)
	one, two := filepath.Dir(e.file("index.html", "the first")), filepath.Dir(e.file("index.html", "the second"))
	outside := strings.ReplaceAll(
		deployment("one", 0, "", "python3", "-m", "http.server", "8000", "--directory", one)+
			deployment("two", 8000, "tcp", "python3", "-m", "http.server", "8000", "--directory", two),
		"metadata: {name:", "metadata: {namespace: outside, name:")
	m := e.up("--registry-only", e.file("app.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: outside, labels: {istio-injection: disabled}}\n---\n"+
		outside+deployment("client", 0, "", "sleep", "1d")))
	m.ready("client", "outside/one", "outside/two")
	const entry = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s}
spec:
  hosts: [%s]
  location: MESH_EXTERNAL
  resolution: %s
  endpoints: [{address: %s}]
  ports: [{number: 8000, name: tcp, protocol: TCP}, {number: 80, name: http, protocol: HTTP, targetPort: 8000}]
---
`
	m.must("apply", "--wait", "-f", m.file("entries.yaml",
		fmt.Sprintf(entry, "one", "one.example.com", "STATIC", m.podIP("outside", "one"))+
			// The proxy resolves this one's endpoint.
			fmt.Sprintf(entry, "two", "two.example.com", "DNS", "two.outside.svc.cluster.local")))

	addresses := map[string]bool{}
	for _, host := range []string{"one.example.com", "two.example.com"} {
		m.eventually(patience, host+" has an address for the client", func() (string, bool) {
			r := m.exec("client", "getent", "ahostsv4", host)
			a, _, _ := strings.Cut(r.stdout, " ")
			addresses[a] = true
			return describe(r), strings.HasPrefix(a, "240.240.")
		})
		if r := m.exec("outside/one", "getent", "ahostsv4", host); r.code == 0 {
			t.Errorf("%s is told to a pod without a sidecar: %s", host, r.stdout)
		}
	}
	delete(addresses, "")
	if len(addresses) != 2 {
		t.Errorf("addresses %v, want two", addresses)
	}
	for url, want := range map[string]string{
		"http://one.example.com:8000/": "the first", "http://two.example.com:8000/": "the second", // TCP, by address
		"http://one.example.com/": "the first", "http://two.example.com/": "the second", // HTTP, by Host
	} {
		m.eventually(patience, url, func() (string, bool) {
			r := m.exec("client", "curl", "-sS", "--max-time", "30", url)
			return describe(r), r.stdout == want
		})
	}
	m.wantCounted("client", "istio_tcp_connections_opened_total{", `destination_service="two.example.com"`)
	// What no entry names stays out of reach.
	if r := m.exec("client", "curl", "-sS", "--max-time", "5", "http://"+m.podIP("outside", "one")+":8000/"); r.code == 0 && strings.Contains(r.stdout, "the first") {
		t.Errorf("an address that no entry has was reached: %s", r.stdout)
	}
}
