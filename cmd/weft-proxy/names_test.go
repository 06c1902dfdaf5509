package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft.mesh/weft/node/dns"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// Only a sidecar whose pod asks for it answers names, and then tells the control plane.
func TestNamesAreAnsweredWhereThePodSaysSo(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  []string
		role xds.NodeType
		want bool
		told bool
	}{
		{"not said", nil, xds.Sidecar, false, false},
		{"said no", []string{"ISTIO_META_DNS_CAPTURE=false", "ISTIO_META_DNS_AUTO_ALLOCATE=false"}, xds.Sidecar, false, false},
		{"said yes", []string{"ISTIO_META_DNS_CAPTURE=true"}, xds.Sidecar, true, true},
		{"with allocated addresses", []string{"ISTIO_META_DNS_CAPTURE=true", "ISTIO_META_DNS_AUTO_ALLOCATE=true"}, xds.Sidecar, true, true},
		{"by the proxy's configuration", []string{`PROXY_CONFIG={"proxyMetadata":{"ISTIO_META_DNS_CAPTURE":"true"}}`}, xds.Sidecar, true, true},
		{"a gateway", []string{"ISTIO_META_DNS_CAPTURE=true"}, xds.Router, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := settingsFor(t, tt.role, podRoot(t, map[string]string{fileResolvConf: "nameserver 10.96.0.10\n"}), podEnv(tt.env...))
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Names != nil; got != tt.want || s.DNSCapture != tt.told || tt.want && s.NamesAddress != "127.0.0.1:15053" {
				t.Errorf("answers %t at %q, tells %t", got, s.NamesAddress, s.DNSCapture)
			}
		})
	}
}

// Without name servers to ask the proxy must not start: it would take every query.
func TestNamesNeedAResolvConf(t *testing.T) {
	_, err := settingsOf(t, podRoot(t, nil), podEnv("ISTIO_META_DNS_CAPTURE=true"))
	if err == nil || !strings.Contains(err.Error(), "ISTIO_META_DNS_CAPTURE: name servers of the pod: ") {
		t.Errorf("error = %v", err)
	}
}

// What a program beside the proxy asks is answered from the table as its cluster's DNS would, by every form of a
// name that a resolver makes of resolv.conf, and what is not in it by the pod's name servers.
func TestNameServer(t *testing.T) {
	upstream := &dns.Server{}
	upstream.SetTable(map[string][]string{"outside.example": {"192.0.2.9"}, "reviews.default.svc.cluster.local": {"192.0.2.8"}, "v6.example": {"192.0.2.7"}})
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.9\noptions ndots:5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := newNameServer(conf, "default", "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	if want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.9:53")}; !slices.Equal(n.dns.Upstreams, want) {
		t.Fatalf("upstreams %v, want %v", n.dns.Upstreams, want)
	}
	n.dns.Upstreams = []netip.AddrPort{serveDNS(t, upstream.Run)}
	at := serveDNS(t, n.Run)
	ask := func(name string) string {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, at.String())
		}}
		addrs, err := r.LookupHost(t.Context(), name)
		if err != nil {
			if e, ok := err.(*net.DNSError); ok && e.IsNotFound {
				return "none"
			}
			return err.Error()
		}
		slices.Sort(addrs)
		return strings.Join(addrs, " ")
	}

	if got := ask("reviews.default.svc.cluster.local."); got != "192.0.2.8" {
		t.Errorf("before the first table: %s, want what the cluster's DNS says", got)
	}
	n.SetTable(map[string]nds.Info{
		"reviews.default.svc.cluster.local": {IPs: []string{"10.96.0.7"}, Registry: nds.Kubernetes, Shortname: "reviews", Namespace: "default"},
		"db.data.svc.cluster.local":         {IPs: []string{"10.244.0.4", "10.244.0.5"}, Registry: nds.Kubernetes, Shortname: "db", Namespace: "data"},
		"db-0.db.data.svc.cluster.local":    {IPs: []string{"10.244.0.4"}, Registry: nds.Kubernetes, Shortname: "db-0.db", Namespace: "data"},
		"other.example.svc.cluster.remote":  {IPs: []string{"10.1.0.1"}, Registry: nds.Kubernetes, Shortname: "other", Namespace: "example"},
		"api.example.com":                   {IPs: []string{"240.240.0.1"}, Registry: nds.External},
		"*.wild.example":                    {IPs: []string{"240.240.0.2"}, Registry: nds.External},
		"v6.example":                        {IPs: []string{"2001:db8::1"}, Registry: nds.External},
	})
	for name, want := range map[string]string{
		"reviews.default.svc.cluster.local.": "10.96.0.7",
		"Reviews.Default.SVC.cluster.local.": "10.96.0.7",
		"reviews.":                           "10.96.0.7",
		"reviews.default.":                   "10.96.0.7",
		"reviews.default.svc.":               "10.96.0.7",
		"db.data.":                           "10.244.0.4 10.244.0.5",
		"db.data.svc.":                       "10.244.0.4 10.244.0.5",
		"db-0.db.data.svc.cluster.local.":    "10.244.0.4",
		"db-0.db.data.":                      "10.244.0.4",
		"db.":                                "none", // of another namespace
		"other.example.":                     "none", // of another cluster
		"api.example.com.":                   "240.240.0.1",
		"a.b.wild.example.":                  "240.240.0.2",
		// What a resolver asks first with ndots:5.
		"api.example.com.default.svc.cluster.local.":           "240.240.0.1",
		"db.data.default.svc.cluster.local.":                   "10.244.0.4 10.244.0.5",
		"a.wild.example.default.svc.cluster.local.":            "240.240.0.2",
		"outside.example.default.svc.cluster.local.":           "none",
		"outside.example.":                                     "192.0.2.9",
		"example.com.":                                         "none", // that a name below is known does not make it ours
		"v6.example.":                                          "192.0.2.7",
		"reviews.default.svc.cluster.local.svc.cluster.local.": "none",
	} {
		if got := ask(name); got != want {
			t.Errorf("%s %s, want %s", name, got, want)
		}
	}
}

// serveDNS serves on free ports of loopback until the test ends.
func serveDNS(t *testing.T, run func(context.Context, net.PacketConn, net.Listener) error) netip.AddrPort {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp4", pc.LocalAddr().String())
		if err != nil {
			pc.Close()
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx, pc, ln) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return netip.MustParseAddrPort(pc.LocalAddr().String())
	}
	t.Fatal("no port number is free for both UDP and TCP")
	return netip.AddrPort{}
}
