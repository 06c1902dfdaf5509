package services

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/node/capture"
)

func parse(t *testing.T, namespace, name, spec string) Service {
	t.Helper()
	s, err := Parse([]byte(`{"metadata":{"namespace":"` + namespace + `","name":"` + name + `"},"spec":` + spec + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPlan(t *testing.T) {
	web := func(string) (uint16, bool) { return 8080, true }
	none := func(string) (uint16, bool) { return 0, false }
	pods := []Pod{
		{Namespace: "a", IP: netip.MustParseAddr("10.97.0.2"), Labels: map[string]string{"app": "x", "v": "1"}, NamedPort: web},
		{Namespace: "a", IP: netip.MustParseAddr("10.97.0.3"), Labels: map[string]string{"app": "x", "v": "2"}, NamedPort: none},
		{Namespace: "b", IP: netip.MustParseAddr("10.97.0.4"), Labels: map[string]string{"app": "x"}, NamedPort: web},
	}
	names := map[string][]string{"s.a.svc.cluster.local": {"10.96.0.9"}, "many.a.svc.cluster.local": {"10.97.0.2", "10.97.0.3"}}
	ap := netip.MustParseAddrPort
	tests := []struct {
		name string
		svc  Service
		want []capture.ServicePort
	}{
		{"a port is the pod's own unless it says otherwise", parse(t, "a", "s", `{"selector":{"app":"x"},"ports":[{"port":80}]}`),
			[]capture.ServicePort{{Address: ap("10.96.0.9:80"), Backends: []netip.AddrPort{ap("10.97.0.2:80"), ap("10.97.0.3:80")}}}},
		{"a target port by number and a narrower selector", parse(t, "a", "s", `{"selector":{"app":"x","v":"2"},"ports":[{"port":80,"targetPort":9080,"protocol":"UDP"}]}`),
			[]capture.ServicePort{{Address: ap("10.96.0.9:80"), UDP: true, Backends: []netip.AddrPort{ap("10.97.0.3:9080")}}}},
		{"a target port by name is looked up in each pod", parse(t, "a", "s", `{"selector":{"app":"x"},"ports":[{"port":80,"targetPort":"web"}]}`),
			[]capture.ServicePort{{Address: ap("10.96.0.9:80"), Backends: []netip.AddrPort{ap("10.97.0.2:8080")}}}},
		{"the object's own address wins", parse(t, "a", "s", `{"clusterIP":"10.96.9.9","selector":{"v":"1"},"ports":[{"port":1}]}`),
			[]capture.ServicePort{{Address: ap("10.96.9.9:1"), Backends: []netip.AddrPort{ap("10.97.0.2:1")}}}},
		{"no ready pod leaves no backends", parse(t, "a", "s", `{"selector":{"app":"gone"},"ports":[{"port":80}]}`),
			[]capture.ServicePort{{Address: ap("10.96.0.9:80")}}},
		{"a headless service has no address", parse(t, "a", "s", `{"clusterIP":"None","selector":{"app":"x"},"ports":[{"port":80}]}`), nil},
		{"several addresses are pods", parse(t, "a", "many", `{"selector":{"app":"x"},"ports":[{"port":80}]}`), nil},
		{"an unknown service has none yet", parse(t, "a", "other", `{"selector":{"app":"x"},"ports":[{"port":80}]}`), nil},
		{"without selector there is nothing to choose", parse(t, "a", "s", `{"ports":[{"port":80}]}`), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Plan([]Service{tt.svc}, names, "cluster.local", pods)
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Error(d)
			}
		})
	}
}
