package capture

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft.mesh/weft/node/netns"
)

// lab is a pod and a peer, linked, with a listener in each for every port that
// tests use: it answers with its name, port and what it knows of the caller.
type lab struct {
	pod, peer *netns.Handle
}

var peerIP = netip.MustParseAddr("10.97.0.6")

func newLab(t *testing.T) lab {
	t.Helper()
	var l lab
	for _, h := range []**netns.Handle{&l.pod, &l.peer} {
		ns, err := netns.New()
		if netns.Unsupported(err) {
			t.Skipf("SKIPPED, NOT TESTED: network namespaces need CAP_SYS_ADMIN: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		*h = ns
	}
	check(t, l.pod.Do(func() error {
		v := netlink.NewVeth(netlink.LinkAttrs{Name: "eth0", TxQLen: -1})
		v.PeerName, v.PeerNamespace = "eth0", netlink.NsFd(l.peer.FD())
		return netlink.LinkAdd(v)
	}))
	for ns, ip := range map[*netns.Handle]netip.Addr{l.pod: podIP, l.peer: peerIP} {
		check(t, ns.Do(func() error {
			if err := netns.SetLoopbackUp(); err != nil {
				return err
			}
			h, err := netlink.NewHandle()
			if err != nil {
				return err
			}
			defer h.Close()
			eth, err := h.LinkByName("eth0")
			if err != nil {
				return err
			}
			if err := h.AddrAdd(eth, &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(16, 32)}}); err != nil {
				return err
			}
			if err := h.LinkSetUp(eth); err != nil {
				return err
			}
			// Service addresses need some way out to reach the output hook.
			return h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(10, 96, 0, 0), Mask: net.CIDRMask(16, 32)}, Scope: netlink.SCOPE_LINK})
		}))
	}
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (l lab) serve(t *testing.T, ns *netns.Handle, name string, ports ...int) {
	t.Helper()
	for _, port := range ports {
		ln, err := ns.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		check(t, err)
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%s:%d from %s for %s", name, port, from, originalDst(c))
				c.Close()
			}
		}()
	}
}

// originalDst is where the caller wanted to go (SO_ORIGINAL_DST).
func originalDst(c net.Conn) netip.AddrPort {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return netip.AddrPort{}
	}
	var out netip.AddrPort
	raw.Control(func(fd uintptr) {
		if m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, unix.SO_ORIGINAL_DST); err == nil {
			b := m.Multiaddr
			out = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
		}
	})
	return out
}

// call connects from inside ns and returns what the listener says, or an error
// as text.
func call(ns *netns.Handle, d net.Dialer, to string) string {
	var conn net.Conn
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := ns.Do(func() error {
		var err error
		conn, err = d.DialContext(ctx, "tcp4", to)
		return err
	})
	if err != nil {
		return "error"
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	b, _ := io.ReadAll(conn)
	return string(b)
}

var proxySocket = net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, DefaultMark) })
	return err
}}

func TestApplyRedirectsBothWays(t *testing.T) {
	l := newLab(t)
	l.serve(t, l.pod, "pod", 15001, 15006, 15021, 9080, 22, 53)
	l.serve(t, l.peer, "peer", 80, 3306, 53)
	check(t, Apply(l.pod, plan(t, map[string]string{AnnotationExcludeInboundPorts: "22", AnnotationExcludeOutboundPorts: "3306"})))

	toApp := proxySocket
	toApp.LocalAddr = &net.TCPAddr{IP: InboundSource.AsSlice()}
	tests := []struct {
		name string
		from *netns.Handle
		d    net.Dialer
		to   string
		want string
	}{
		{"the program's calls go to the outbound port", l.pod, net.Dialer{}, "10.97.0.6:80", "pod:15001 from 10.97.0.5 for 10.97.0.6:80"},
		{"a service address goes to the outbound port", l.pod, net.Dialer{}, "10.96.0.10:80", "pod:15001 from 10.97.0.5 for 10.96.0.10:80"},
		{"an excluded outbound port is left alone", l.pod, net.Dialer{}, "10.97.0.6:3306", "peer:3306 from 10.97.0.5 for 0.0.0.0:0"},
		{"the proxy's own calls are left alone", l.pod, proxySocket, "10.97.0.6:80", "peer:80 from 10.97.0.5 for 0.0.0.0:0"},
		{"the program's calls to itself are left alone", l.pod, net.Dialer{}, "127.0.0.1:9080", "pod:9080 from 127.0.0.1 for 0.0.0.0:0"},
		{"a call to the pod's own address is left alone", l.pod, net.Dialer{}, "10.97.0.5:9080", "pod:9080 from 10.97.0.5 for 0.0.0.0:0"},
		{"the proxy calling its own pod goes to the inbound port", l.pod, proxySocket, "10.97.0.5:9080", "pod:15006 from 10.97.0.5 for 10.97.0.5:9080"},
		{"the proxy calling the program is left alone", l.pod, toApp, "10.97.0.5:9080", "pod:9080 from 127.0.0.6 for 0.0.0.0:0"},
		{"the proxy calling an excluded port of its pod is left alone", l.pod, proxySocket, "10.97.0.5:22", "pod:22 from 10.97.0.5 for 0.0.0.0:0"},
		{"a call from elsewhere goes to the inbound port", l.peer, net.Dialer{}, "10.97.0.5:9080", "pod:15006 from 10.97.0.6 for 10.97.0.5:9080"},
		{"an excluded inbound port is left alone", l.peer, net.Dialer{}, "10.97.0.5:22", "pod:22 from 10.97.0.6 for 0.0.0.0:0"},
		{"the proxy's readiness port is left alone", l.peer, net.Dialer{}, "10.97.0.5:15021", "pod:15021 from 10.97.0.6 for 0.0.0.0:0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := call(tt.from, tt.d, tt.to)
			got = strings.ReplaceAll(got, "invalid AddrPort", "0.0.0.0:0")
			// Once connections are tracked, one that was not redirected has its own address as the original.
			if want := strings.ReplaceAll(tt.want, "for 0.0.0.0:0", "for "+tt.to); got != tt.want && got != want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestApplyReplacesAndRemoveUndoes(t *testing.T) {
	l := newLab(t)
	l.serve(t, l.pod, "pod", 15001)
	l.serve(t, l.peer, "peer", 80)
	for range 2 {
		check(t, Apply(l.pod, plan(t, nil)))
	}
	if got := call(l.pod, net.Dialer{}, "10.97.0.6:80"); !strings.HasPrefix(got, "pod:15001") {
		t.Errorf("captured: got %q", got)
	}
	check(t, Apply(l.pod, plan(t, map[string]string{AnnotationIncludeOutboundRanges: ""})))
	if got := call(l.pod, net.Dialer{}, "10.97.0.6:80"); !strings.HasPrefix(got, "peer:80") {
		t.Errorf("nothing included: got %q", got)
	}
	check(t, Apply(l.pod, plan(t, nil)))
	for range 2 {
		check(t, Remove(l.pod, TableCapture))
	}
	if got := call(l.pod, net.Dialer{}, "10.97.0.6:80"); !strings.HasPrefix(got, "peer:80") {
		t.Errorf("removed: got %q", got)
	}
}

func TestServiceAddressesReachEveryBackend(t *testing.T) {
	l := newLab(t)
	l.serve(t, l.pod, "pod", 9080)
	l.serve(t, l.peer, "peer", 9080, 9081)
	ap := netip.MustParseAddrPort
	check(t, Apply(l.pod, PlanServices([]ServicePort{
		{Address: ap("10.96.0.10:80"), Backends: []netip.AddrPort{ap("10.97.0.5:9080"), ap("10.97.0.6:9080"), ap("10.97.0.6:9081")}}})))
	seen := map[string]int{}
	const calls = 150
	for range calls {
		where, _, _ := strings.Cut(call(l.pod, net.Dialer{}, "10.96.0.10:80"), " ")
		seen[where]++
	}
	for _, backend := range []string{"pod:9080", "peer:9080", "peer:9081"} {
		// The chance of fewer than 20 of 150 with a third each is below 1e-7.
		if seen[backend] < 20 {
			t.Errorf("%d of %d calls reached %s: %v", seen[backend], calls, backend, seen)
		}
	}
}

// userCall calls from a process of another user inside ns.
func userCall(t *testing.T, ns *netns.Handle, id uint32, source, to string) string {
	t.Helper()
	args := []string{"--silent", "--max-time", "2", "--http0.9", "telnet://" + to}
	if source != "" {
		args = append([]string{"--interface", "host!" + source}, args...)
	}
	var out []byte
	check(t, ns.Do(func() error {
		cmd := exec.Command("curl", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		out, _ = cmd.Output() // what it got tells
		return nil
	}))
	return string(out)
}

func TestApplyKnowsTheProxyByItsUser(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: the curl command is not installed")
	}
	l := newLab(t)
	l.serve(t, l.pod, "pod", 15001, 15006, 9080)
	l.serve(t, l.peer, "peer", 80)
	r, err := Plan(Config{PodIP: podIP, Users: []uint32{1337}, Groups: []uint32{1337}})
	check(t, err)
	check(t, Apply(l.pod, r))
	for _, tt := range []struct {
		name   string
		id     uint32
		source string
		to     string
		want   string
	}{
		{"the program's calls go to the outbound port", 65534, "", "10.97.0.6:80", "pod:15001"},
		{"the proxy's calls are left alone", 1337, "", "10.97.0.6:80", "peer:80"},
		{"the proxy calling its own pod goes to the inbound port", 1337, "", "10.97.0.5:9080", "pod:15006"},
		{"the proxy calling the program is left alone", 1337, "127.0.0.6", "10.97.0.5:9080", "pod:9080 from 127.0.0.6"},
		{"the program's calls to itself are left alone", 65534, "", "10.97.0.5:9080", "pod:9080"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := userCall(t, l.pod, tt.id, tt.source, tt.to); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
}

// What the kernel holds is what Plan printed.
func TestTheKernelHoldsThePlan(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: the nft command is not installed")
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			want := plan(t, tt.annotations)
			check(t, Apply(l.pod, want))
			var out []byte
			check(t, l.pod.Do(func() error {
				var err error
				out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
				return err
			}))
			if d := cmp.Diff(normal(want.String()), normal(string(out))); d != "" {
				t.Errorf("-want +in the kernel:\n%s", d)
			}
		})
	}
}

// normal evens out what versions of nft print differently.
func normal(s string) string {
	s = strings.ReplaceAll(s, "priority dstnat", "priority -100")
	s = regexp.MustCompile(`l4proto 6\b`).ReplaceAllString(s, "l4proto tcp") // without /etc/protocols
	s = regexp.MustCompile(`l4proto 17\b`).ReplaceAllString(s, "l4proto udp")
	s = regexp.MustCompile(`redirect to :(\d+)`).ReplaceAllString(s, "redirect to $1")
	s = regexp.MustCompile(`meta l4proto tcp (ip daddr \S+ )?tcp dport`).ReplaceAllString(s, "${1}tcp dport")
	return regexp.MustCompile(`[ \t]+`).ReplaceAllString(s, " ")
}
