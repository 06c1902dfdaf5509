package capture

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".nft")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, d)
	}
}

var podIP = netip.MustParseAddr("10.97.0.5")

var cases = []struct {
	name        string
	annotations map[string]string
}{
	{"default", nil},
	{"excludes", map[string]string{
		AnnotationExcludeInboundPorts: "22, 8081", AnnotationExcludeOutboundPorts: "3306,443", AnnotationExcludeOutboundRanges: "10.1.0.0/16,192.168.1.7/32",
	}},
	{"includes", map[string]string{
		AnnotationIncludeInboundPorts: "80,8080", AnnotationIncludeOutboundRanges: "10.0.0.0/8", AnnotationIncludeOutboundPorts: "9999",
	}},
	{"interfaces", map[string]string{AnnotationExcludeInterfaces: "eth1, net1"}},
	{"stars", map[string]string{AnnotationIncludeInboundPorts: "*", AnnotationIncludeOutboundRanges: "*"}},
	{"nothing", map[string]string{AnnotationIncludeInboundPorts: "", AnnotationIncludeOutboundRanges: ""}},
}

func plan(t *testing.T, annotations map[string]string) Ruleset {
	t.Helper()
	traffic, err := ParseTraffic(annotations)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Plan(Config{PodIP: podIP, DNS: netip.MustParseAddrPort("10.97.0.1:53"), Traffic: traffic})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlan(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) { golden(t, tt.name, plan(t, tt.annotations).String()) })
	}
}

// In a Kubernetes pod the proxy may not mark its sockets: its user tells.
func TestPlanByUser(t *testing.T) {
	r, err := Plan(Config{PodIP: podIP, Users: []uint32{1337}, Groups: []uint32{1337}})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "user", r.String())
}

// What the node agent writes has a way for the pod to find out.
func TestPlanWithAProbe(t *testing.T) {
	r, err := Plan(Config{PodIP: podIP, Users: []uint32{1337}, Groups: []uint32{1337}, Probe: true, Traffic: Traffic{InboundPorts: []uint16{}, ExcludeInterfaces: []string{"lo"}}})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "probe", r.String())
}

func TestStarsMeanTheDefault(t *testing.T) {
	if d := cmp.Diff(plan(t, nil).String(), plan(t, map[string]string{AnnotationIncludeInboundPorts: " * ", AnnotationIncludeOutboundRanges: "*"}).String()); d != "" {
		t.Error(d)
	}
}

func TestPlanServices(t *testing.T) {
	ap := netip.MustParseAddrPort
	r := PlanServices([]ServicePort{
		{Address: ap("10.96.0.20:443"), Backends: []netip.AddrPort{ap("10.97.0.9:8443")}},
		{Address: ap("10.96.0.10:53"), UDP: true, Backends: []netip.AddrPort{ap("10.97.0.2:5353")}},
		{Address: ap("10.96.0.10:80"), Backends: []netip.AddrPort{ap("10.97.0.4:80"), ap("10.97.0.2:80"), ap("10.97.0.3:8080")}},
		{Address: ap("10.96.0.30:80")},
		{Address: ap("[fd00::1]:80"), Backends: []netip.AddrPort{ap("10.97.0.4:80")}},
		{Address: ap("10.96.0.40:80"), Backends: []netip.AddrPort{ap("[fd00::2]:80")}},
	})
	golden(t, "services", r.String())
}

func TestPlanRefuses(t *testing.T) {
	tests := []struct {
		name string
		c    Config
		want string
	}{
		{"an IPv6 pod", Config{PodIP: netip.MustParseAddr("fd00::1")}, "IPv6 pods are not supported"},
		{"a pod without address", Config{}, "want an IPv4 address"},
		{"one port for both directions", Config{PodIP: podIP, InboundPort: 15001}, "must differ"},
		{"an IPv6 range", Config{PodIP: podIP, Traffic: Traffic{OutboundRanges: []netip.Prefix{netip.MustParsePrefix("fd00::/8")}}}, "IPv4 range"},
		{"an interface that cannot be", Config{PodIP: podIP, Traffic: Traffic{ExcludeInterfaces: []string{"an-interface-that-is-long"}}}, "name of a link"},
		{"an IPv6 name server", Config{PodIP: podIP, DNS: netip.MustParseAddrPort("[::1]:53")}, "name server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Plan(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestParseTrafficRefuses(t *testing.T) {
	tests := []struct{ name, key, value, want string }{
		{"a port that is no number", AnnotationExcludeInboundPorts, "80,http", `"http" is not a port`},
		{"port zero", AnnotationIncludeInboundPorts, "0", "is not a port"},
		{"a port that is too large", AnnotationExcludeOutboundPorts, "65536", "is not a port"},
		{"an IPv6 range", AnnotationExcludeOutboundRanges, "fd00::/8", "is not an IPv4 range"},
		{"an address without length", AnnotationIncludeOutboundRanges, "10.0.0.1", "is not an IPv4 range"},
		{"a star where there is none", AnnotationExcludeOutboundPorts, "*", "is not a port"},
		{"an annotation that is not implemented", annotationPrefix + "kubevirtInterfaces", "eth1", "not supported"},
		{"too many items", AnnotationExcludeOutboundPorts, strings.Repeat("1,", 257), "more than 256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseTraffic(map[string]string{tt.key: tt.value})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.key) {
				t.Errorf("error %v, want one that names %s and says %q", err, tt.key, tt.want)
			}
		})
	}
}
