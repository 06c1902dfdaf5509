package dns

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
)

// exchange asks a server once.
func exchange(t *testing.T, at, name string, typ dnsmessage.Type) dnsmessage.Message {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := writeFrame(c, ask(t, name, typ, false)); err != nil {
		t.Fatal(err)
	}
	reply, err := readFrame(c, maxMessage)
	var m dnsmessage.Message
	if err == nil {
		err = m.Unpack(reply)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A server in a pod is a part of the DNS: what it does not know for certain is the upstream's to answer.
func TestAPartialServerLeavesTheRestToItsUpstreams(t *testing.T) {
	up := &Server{}
	up.SetTable(map[string][]string{"example.com": {"192.0.2.1"}, "only6.example": {"192.0.2.2"}})
	s := &Server{Partial: true, Upstreams: []netip.AddrPort{netip.MustParseAddrPort(serve(t, up))}}
	s.SetTable(map[string][]string{"api.example.com": {"240.240.0.1"}, "only6.example": {"2001:db8::1"}})
	at := serve(t, s)
	for _, tt := range []struct {
		name, ask string
		typ       dnsmessage.Type
		code      dnsmessage.RCode
		answers   int
		ours      bool // the upstream knows nothing of api.example.com
	}{
		{"a known name", "api.example.com.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1, true},
		{"has no IPv6 address, which is no error", "api.example.com.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, 0, true},
		{"another type of it", "api.example.com.", dnsmessage.TypeSRV, dnsmessage.RCodeNameError, 0, false},
		{"a name above it", "example.com.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1, false},
		{"a name without an IPv4 address", "only6.example.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1, false},
		{"a name that nobody knows", "nobody.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := s.Counts()
			if m := exchange(t, at, tt.ask, tt.typ); m.RCode != tt.code || len(m.Answers) != tt.answers {
				t.Errorf("%v with %d answers, want %v with %d", m.RCode, len(m.Answers), tt.code, tt.answers)
			}
			now := s.Counts()
			if forwarded := now.Forwarded > before.Forwarded; forwarded == tt.ours || now.Requests != before.Requests+1 || now.Failed != 0 {
				t.Errorf("counts %+v after %+v, want one request more, forwarded: %t", now, before, !tt.ours)
			}
		})
	}
}

// Whether a name exists is not known while no upstream answers: a resolver must not take it for one that does not.
func TestNobodyToAskIsAFailureAndNoAbsence(t *testing.T) {
	s := &Server{Partial: true, Upstreams: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}, Timeout: 5 * time.Second}
	s.SetTable(names)
	at := serve(t, s)
	if m := exchange(t, at, "example.org.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("over TCP: %v, want a server failure", m.RCode)
	}
	if n := s.Counts(); n.Requests != 1 || n.Forwarded != 1 || n.Failed != 1 {
		t.Errorf("counts %+v, want one that failed", n)
	}
	c, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(ask(t, "example.org.", dnsmessage.TypeA, true)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512)
	n, err := c.Read(b)
	if err != nil || said(t, b[:n]) != "ServerFailure[]" {
		t.Errorf("over UDP: %v, %x", err, b[:n])
	}
}

// A resolver puts its first search domain behind every name with few dots; it is told at once what it means.
func TestASearchedNameIsAnAlias(t *testing.T) {
	s := &Server{Search: "default.svc.cluster.local"}
	s.SetTable(map[string][]string{"api.example.com": {"240.240.0.1"}, "web.default.svc.cluster.local": {"10.96.0.7"}})
	for _, tt := range []struct {
		ask  string
		typ  dnsmessage.Type
		want []string
	}{
		{"api.example.com.Default.svc.cluster.local.", dnsmessage.TypeA, []string{"api.example.com.Default.svc.cluster.local. CNAME api.example.com.", "api.example.com. 240.240.0.1"}},
		{"api.example.com.default.svc.cluster.local.", dnsmessage.TypeAAAA, []string{"api.example.com.default.svc.cluster.local. CNAME api.example.com."}},
		{"web.default.svc.cluster.local.", dnsmessage.TypeA, []string{"web.default.svc.cluster.local. 10.96.0.7"}},
		{"other.example.default.svc.cluster.local.", dnsmessage.TypeA, []string{"RCodeNameError"}},
	} {
		t.Run(tt.ask, func(t *testing.T) {
			reply, _ := s.answer(ask(t, tt.ask, tt.typ, true), 0, netip.Addr{})
			var m dnsmessage.Message
			if err := m.Unpack(reply); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range m.Answers {
				switch b := r.Body.(type) {
				case *dnsmessage.CNAMEResource:
					got = append(got, r.Header.Name.String()+" CNAME "+b.CNAME.String())
				case *dnsmessage.AResource:
					got = append(got, r.Header.Name.String()+" "+netip.AddrFrom4(b.A).String())
				}
			}
			if m.RCode != dnsmessage.RCodeSuccess {
				got = append(got, m.RCode.String())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A host that is called like the short form of a Service is that host, in whatever order they come.
func TestAShortNameTakesNoHostsPlace(t *testing.T) {
	hosts := []Host{
		{Name: "web.default.svc.cluster.local", Addrs: []string{"10.96.0.7"}, Short: "web", Namespace: "default"},
		{Name: "web.default", Addrs: []string{"192.0.2.1"}},
		{Name: "gone.default.svc.cluster.local", Short: "gone", Namespace: "default"},
	}
	want := map[string][]string{"web.default.svc.cluster.local": {"10.96.0.7"}, "web.default": {"192.0.2.1"}, "web.default.svc": {"10.96.0.7"}, "web": {"10.96.0.7"}}
	for range 2 {
		if d := cmp.Diff(want, PodTable(hosts, "default", "cluster.local")); d != "" {
			t.Error(d)
		}
		hosts[0], hosts[1] = hosts[1], hosts[0]
	}
}

const resolvConf = `# made by kubelet
search Default.svc.cluster.local. svc.cluster.local cluster.local
nameserver 10.96.0.10 ; the cluster's
nameserver fd00::a
nameserver not.an.address
nameserver 10.0.0.1
nameserver 10.0.0.2
options ndots:5
`

func TestParseResolvConf(t *testing.T) {
	c := ParseResolvConf(resolvConf)
	want := ResolvConf{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("[fd00::a]:53"), netip.MustParseAddrPort("10.0.0.1:53")},
		Search:  []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
	}
	if d := cmp.Diff(want, c, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if v4, err := c.ServersIPv4(); err != nil || len(v4) != 2 {
		t.Errorf("IPv4: %v, %v", v4, err)
	}
	if c := ParseResolvConf("search a\ndomain b\n"); len(c.Search) != 1 || c.Search[0] != "b" {
		t.Errorf("of two lists %v counts, want the last", c.Search)
	}
	if _, err := ParseResolvConf("nameserver fd00::a\n").ServersIPv4(); err == nil || !strings.Contains(err.Error(), "no nameserver") {
		t.Errorf("no IPv4 server: %v", err)
	}
}

// Whatever the file holds, what is taken of it is within the bounds and fit to be asked and compared with.
func FuzzResolvConf(f *testing.F) {
	f.Add(resolvConf)
	f.Add("nameserver ::ffff:10.0.0.1\nsearch . .. a\x00b\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := ParseResolvConf(text)
		if len(c.Servers) > maxServers || len(c.Search) > maxSearch {
			t.Fatalf("%d servers, %d search domains", len(c.Servers), len(c.Search))
		}
		for _, s := range c.Servers {
			if !s.IsValid() || s.Addr().Is4In6() || s.Port() != serverPort || !strings.Contains(text, "nameserver") {
				t.Fatalf("server %v", s)
			}
		}
		for _, d := range c.Search {
			if d == "" || len(d) > maxNameLen || d != strings.ToLower(d) || strings.ContainsAny(d, " \t\n#;") {
				t.Fatalf("search domain %q", d)
			}
		}
	})
}

func TestHowLongUpstreamsTakeIsCountedByBounds(t *testing.T) {
	var s Server
	for _, d := range []time.Duration{time.Millisecond, 2 * time.Millisecond, 50 * time.Millisecond, 9 * time.Second} {
		s.counts.forward(d, true)
	}
	want := Counts{Forwarded: 4, Took: [len(Bounds) + 1]uint64{1, 1, 0, 1, 0, 0, 1}, TookSum: 9053 * time.Millisecond}
	if diff := cmp.Diff(want, s.Counts()); diff != "" {
		t.Error(diff)
	}
}
