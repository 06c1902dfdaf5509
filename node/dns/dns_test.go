package dns

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
)

var names = map[string][]string{
	"reviews.default.svc.cluster.local": {"10.96.0.7"},
	"db.data.svc.cluster.local":         {"10.97.0.4", "10.97.0.5"},
	"v6.default.svc.cluster.local":      {"fd00::7"},
	"*.wild.example":                    {"240.240.0.1"},
	"API.Example.COM.":                  {"240.240.0.2", "not an address"},
	"":                                  {"1.1.1.1"},
}

func newServer() *Server {
	s := &Server{}
	s.SetTable(names)
	return s
}

func ask(t testing.TB, name string, typ dnsmessage.Type, edns bool) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 0xbeef, RecursionDesired: true})
	b.EnableCompression()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	b.StartQuestions()
	b.Question(dnsmessage.Question{Name: n, Type: typ, Class: dnsmessage.ClassINET})
	if edns {
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(4096, dnsmessage.RCodeSuccess, false)
		b.StartAdditionals()
		b.OPTResource(h, dnsmessage.OPTResource{})
	}
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// said is a reply in short: the code and the addresses, sorted.
func said(t testing.TB, reply []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("reply %x: %v", reply, err)
	}
	if m.ID != 0xbeef || !m.Response {
		t.Errorf("header %+v", m.Header)
	}
	var addrs []string
	for _, a := range m.Answers {
		addrs = append(addrs, netip.AddrFrom4(a.Body.(*dnsmessage.AResource).A).String())
	}
	slices.Sort(addrs)
	s := fmt.Sprint(m.RCode.String()[len("RCode"):], addrs)
	if m.Truncated {
		s += " truncated"
	}
	return s
}

func TestAnswer(t *testing.T) {
	tests := []struct {
		name, ask string
		typ       dnsmessage.Type
		want      string
	}{
		{"a service has its address", "reviews.default.svc.cluster.local.", dnsmessage.TypeA, "Success[10.96.0.7]"},
		{"case does not matter", "Reviews.DEFAULT.svc.cluster.local.", dnsmessage.TypeA, "Success[10.96.0.7]"},
		{"a headless service has its pods", "db.data.svc.cluster.local.", dnsmessage.TypeA, "Success[10.97.0.4 10.97.0.5]"},
		{"a known name has no IPv6 address, but exists", "reviews.default.svc.cluster.local.", dnsmessage.TypeAAAA, "Success[]"},
		{"other types are empty", "reviews.default.svc.cluster.local.", dnsmessage.TypeSRV, "Success[]"},
		{"a name with only IPv6 addresses is empty", "v6.default.svc.cluster.local.", dnsmessage.TypeA, "Success[]"},
		{"any asks for all", "reviews.default.svc.cluster.local.", dnsmessage.TypeALL, "Success[10.96.0.7]"},
		{"a wildcard covers what is below", "a.b.wild.example.", dnsmessage.TypeA, "Success[240.240.0.1]"},
		{"a wildcard does not cover itself, which exists", "wild.example.", dnsmessage.TypeA, "Success[]"},
		{"table keys are normalised and bad addresses left out", "api.example.com.", dnsmessage.TypeA, "Success[240.240.0.2]"},
		{"a search domain's expansion does not exist", "reviews.default.svc.cluster.local.default.svc.cluster.local.", dnsmessage.TypeA, "NameError[]"},
		{"a name above a known one exists", "svc.cluster.local.", dnsmessage.TypeA, "Success[]"},
		{"the internet does not exist", "example.org.", dnsmessage.TypeA, "NameError[]"},
		{"the root does not exist", ".", dnsmessage.TypeA, "NameError[]"},
	}
	s := newServer()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, edns := range []bool{false, true} {
				reply, _ := s.answer(ask(t, tt.ask, tt.typ, edns), 0, netip.Addr{})
				if got := said(t, reply); got != tt.want {
					t.Errorf("edns %t: got %s, want %s", edns, got, tt.want)
				}
			}
		})
	}
}

func TestAnAnswerThatDoesNotFitIsTruncated(t *testing.T) {
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("10.97.1.%d", i+1))
	}
	s := &Server{}
	s.SetTable(map[string][]string{"many.example": many})
	for _, tt := range []struct {
		name      string
		edns      bool
		limit     int
		most      int
		truncated bool
	}{{"over UDP", false, 0, 512, true}, {"over UDP with EDNS", true, 0, 1232, false}, {"over TCP", false, maxMessage, maxMessage, false}} {
		t.Run(tt.name, func(t *testing.T) {
			reply, _ := s.answer(ask(t, "many.example.", dnsmessage.TypeA, tt.edns), tt.limit, netip.Addr{})
			var m dnsmessage.Message
			if err := m.Unpack(reply); err != nil {
				t.Fatal(err)
			}
			if len(reply) > tt.most || m.Truncated != tt.truncated || (!tt.truncated && len(m.Answers) != 60) || len(m.Answers) == 0 {
				t.Errorf("%d bytes, truncated %t, %d answers", len(reply), m.Truncated, len(m.Answers))
			}
		})
	}
}

func TestMalformedQueries(t *testing.T) {
	good := ask(t, "reviews.default.svc.cluster.local.", dnsmessage.TypeA, true)
	response := bytes.Clone(good)
	response[2] |= 0x80
	status := bytes.Clone(good)
	status[2] |= 0x10
	two := bytes.Clone(good)
	two[5] = 2
	chaos := ask(t, "reviews.default.svc.cluster.local.", dnsmessage.TypeA, false)
	chaos[len(chaos)-1] = 3
	tests := []struct {
		name string
		msg  []byte
		want string
	}{
		{"nothing gets no answer", nil, ""},
		{"half a header gets no answer", good[:7], ""},
		{"a response gets no answer", response, ""},
		{"another operation is not implemented", status, "NotImplemented[]"},
		{"a cut question is a format error", good[:20], "FormatError[]"},
		{"two questions are a format error", two, "FormatError[]"},
		{"another class is refused", chaos, "Refused[]"},
	}
	s := newServer()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reply, _ := s.answer(tt.msg, 0, netip.Addr{})
			got := ""
			if reply != nil {
				got = said(t, reply)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// serve runs s on loopback and returns its address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	pc, ln := bothPorts(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, pc, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pc.LocalAddr().String()
}

// bothPorts opens one free port number for UDP and TCP. A number that is free
// for one may be taken for the other.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if ln, err := net.Listen("tcp4", pc.LocalAddr().String()); err == nil {
			return pc, ln
		}
		pc.Close()
	}
	t.Fatal("no port number is free for both UDP and TCP")
	return nil, nil
}

// resolver is Go's own client, speaking to our server.
func resolver(addr, network string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
}

func TestServesGoResolversOverUDPAndTCP(t *testing.T) {
	addr := serve(t, newServer())
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			got, err := resolver(addr, network).LookupHost(t.Context(), "db.data.svc.cluster.local.")
			slices.Sort(got)
			if d := cmp.Diff([]string{"10.97.0.4", "10.97.0.5"}, got); d != "" || err != nil {
				t.Error(d, err)
			}
			_, err = resolver(addr, network).LookupHost(t.Context(), "nobody.example.")
			if e, ok := err.(*net.DNSError); !ok || !e.IsNotFound {
				t.Errorf("unknown name: %v", err)
			}
		})
	}
}

func TestTheLastTableStaysAndANewOneReplacesIt(t *testing.T) {
	s := newServer()
	addr := serve(t, s)
	s.SetTable(map[string][]string{"new.example": {"10.0.0.9"}})
	if got, err := resolver(addr, "udp").LookupHost(t.Context(), "new.example."); err != nil || got[0] != "10.0.0.9" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := resolver(addr, "udp").LookupHost(t.Context(), "reviews.default.svc.cluster.local."); err == nil {
		t.Error("a name of the old table is still answered")
	}
}

func TestUpstreamsAreAskedForOtherNamesOnly(t *testing.T) {
	up := &Server{}
	up.SetTable(map[string][]string{"example.org": {"192.0.2.1"}, "reviews.default.svc.cluster.local": {"192.0.2.2"}})
	dead := netip.MustParseAddrPort("127.0.0.1:1")
	s := &Server{Upstreams: []netip.AddrPort{dead, netip.MustParseAddrPort(serve(t, up))}}
	s.SetTable(names)
	addr := serve(t, s)
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{"example.org.": "192.0.2.1", "reviews.default.svc.cluster.local.": "10.96.0.7"} {
			if got, err := resolver(addr, network).LookupHost(t.Context(), name); err != nil || got[0] != want {
				t.Errorf("%s over %s: got %v, %v; want %s", name, network, got, err, want)
			}
		}
	}
}

func TestTooManyConnectionsAreClosed(t *testing.T) {
	addr := serve(t, newServer())
	var open []net.Conn
	for range maxConns + 5 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	last := open[len(open)-1]
	last.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := last.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v: want a closed connection", n, err)
	}
	writeFrame(open[0], ask(t, "reviews.default.svc.cluster.local.", dnsmessage.TypeA, false))
	if reply, err := readFrame(open[0], maxMessage); err != nil || said(t, reply) != "Success[10.96.0.7]" {
		t.Errorf("a connection within the bound: %x, %v", reply, err)
	}
}

// Whatever comes in, what goes out is a well-formed response to it within the
// size that the client takes.
func FuzzAnswer(f *testing.F) {
	f.Add(ask(f, "reviews.default.svc.cluster.local.", dnsmessage.TypeA, true))
	f.Add(ask(f, "nobody.", dnsmessage.TypeAAAA, false))
	raw, _ := hex.DecodeString("00000100000100000000000003777777c00c00010001")
	f.Add(raw)
	s := newServer()
	f.Fuzz(func(t *testing.T, msg []byte) {
		reply, _ := s.answer(msg, 0, netip.Addr{})
		if reply == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("reply %x to %x: %v", reply, msg, err)
		}
		if !m.Response || m.ID != uint16(msg[0])<<8|uint16(msg[1]) || len(reply) > ednsSize {
			t.Fatalf("reply %x to %x", reply, msg)
		}
	})
}

func TestCapturedClientsAreToldMore(t *testing.T) {
	captured, other := netip.MustParseAddr("10.97.0.5"), netip.MustParseAddr("10.97.0.6")
	s := &Server{Captured: func(a netip.Addr) bool { return a == captured }}
	s.SetTable(map[string][]string{"web.default.svc.cluster.local": {"10.96.0.1"}, "*.example.com": {"10.96.0.2"}})
	s.SetCaptured(map[string][]string{"db.example.net": {"240.240.1.2"}, "api.example.com": {"240.240.1.3"}})
	for _, tt := range []struct {
		name, ask string
		typ       dnsmessage.Type
		from      netip.Addr
		want      string
	}{
		{"a name for such clients", "DB.example.net.", dnsmessage.TypeA, captured, "Success[240.240.1.2]"},
		{"has no IPv6 address", "db.example.net.", dnsmessage.TypeAAAA, captured, "Success[]"},
		{"what is above it exists", "example.net.", dnsmessage.TypeA, captured, "Success[]"},
		{"an exact name before a pattern of all", "api.example.com.", dnsmessage.TypeA, captured, "Success[240.240.1.3]"},
		{"what all are told", "web.default.svc.cluster.local.", dnsmessage.TypeA, captured, "Success[10.96.0.1]"},
		{"as IPv4 in IPv6", "db.example.net.", dnsmessage.TypeA, netip.AddrFrom16(captured.As16()), "Success[240.240.1.2]"},
		{"another client", "db.example.net.", dnsmessage.TypeA, other, "NameError[]"},
		{"another client, pattern", "api.example.com.", dnsmessage.TypeA, other, "Success[10.96.0.2]"},
		{"a client without an address", "db.example.net.", dnsmessage.TypeA, netip.Addr{}, "NameError[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply, _ := s.answer(ask(t, tt.ask, tt.typ, false), 0, tt.from)
			if got := said(t, reply); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
