package listener_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/listener"
	"weft.mesh/weft/proxy/stream"
)

// inNamespace moves the test's goroutine into a network namespace of its own. The thread ends with it.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: original destinations need root for a network namespace; run as root")
	}
	runtime.LockOSThread() // never unlocked: the thread must not be used again
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("SKIPPED: no network namespace: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.99.0.1/32", "fd99::1/128"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, addr); err != nil {
			t.Fatalf("address %s: %v", a, err)
		}
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

// redirect sends locally made TCP connections to port 80 to another port of ours.
func redirect(t *testing.T, family nftables.TableFamily, to uint16) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: family, Name: "test"})
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, 80)},
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, to)},
		&expr.Redir{RegisterProtoMin: 1},
	}})
	if err := c.Flush(); err != nil {
		t.Skipf("SKIPPED: no nftables: %v", err)
	}
}

func TestTheKernelTellsTheOriginalDestination(t *testing.T) {
	inNamespace(t)
	redirect(t, nftables.TableFamilyIPv4, 15001)
	redirect(t, nftables.TableFamilyIPv6, 15001)
	e := &echo{}
	m := listener.New(listener.Settings{HTTP: e, TCP: e})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	virtual := func(name, addr string) *config.Listener {
		return &config.Listener{Name: name, Address: at(addr), BindToPort: true, UseOriginalDst: true, Direction: stream.Outbound, Default: tcpChain("passthrough", config.ChainMatch{})}
	}
	vip := &config.Listener{Name: "vip", Address: at("10.99.0.1:80"), Direction: stream.Outbound, Chains: []*config.FilterChain{tcpChain("vip", config.ChainMatch{})}}
	if err := m.Apply(view(virtual("virtualOutbound", "0.0.0.0:15001"), virtual("virtualOutbound6", "[::1]:15001"), vip)); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ to, want, original string }{
		{"10.99.0.1:80", "tcp:vip", "10.99.0.1:80"},
		{"127.0.0.1:80", "tcp:passthrough", "127.0.0.1:80"},
		{"[fd99::1]:80", "tcp:passthrough", "[fd99::1]:80"},
		{"127.0.0.1:15001", "", ""}, // not redirected: a loop
	}
	for _, tt := range tests {
		c, err := net.Dial("tcp", tt.to)
		if err != nil {
			t.Fatalf("%s: %v", tt.to, err)
		}
		got := line(c)
		_ = c.Close()
		if got != tt.want {
			t.Errorf("%s: served by %q, want %q", tt.to, got, tt.want)
			continue
		}
		if tt.want == "" {
			continue
		}
		if i := e.last().info; i.Local.String() != tt.original {
			t.Errorf("%s: original destination %v", tt.to, i.Local)
		}
	}
	if n := m.Stats().Direct.Load(); n != 1 {
		t.Errorf("%d direct connections, want 1", n)
	}
	if s := fmt.Sprint(m.Addresses()); !strings.Contains(s, "virtualOutbound:0.0.0.0:15001") {
		t.Errorf("addresses %s", s)
	}
}
