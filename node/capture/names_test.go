package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/node/netns"
)

func planNames(t *testing.T, c Config) Ruleset {
	t.Helper()
	c.PodIP = podIP
	r, err := Plan(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlanWithNames(t *testing.T) {
	proxy := Config{Users: []uint32{1337}, Groups: []uint32{1337}}
	proxy.Names = &Names{Servers: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("127.0.0.53")}}
	golden(t, "names", planNames(t, proxy).String())
	proxy.Names = &Names{}
	golden(t, "names-all", planNames(t, proxy).String())
}

func TestPlanRefusesNames(t *testing.T) {
	for _, tt := range []struct {
		name    string
		servers []netip.Addr
		want    string
	}{
		{"an IPv6 server", []netip.Addr{netip.MustParseAddr("fd00::a")}, "want an IPv4 address"},
		{"none", []netip.Addr{}, "no name server"},
		{"too many", make([]netip.Addr, maxItems+1), "at most 256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Plan(Config{PodIP: podIP, Names: &Names{Servers: tt.servers}}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// answerUDP answers each datagram with a name, the port and who asked.
func answerUDP(t *testing.T, ns *netns.Handle, lc net.ListenConfig, name, address string) {
	t.Helper()
	var pc net.PacketConn
	check(t, ns.Do(func() (err error) {
		pc, err = lc.ListenPacket(t.Context(), "udp4", address)
		return err
	}))
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(fmt.Appendf(nil, "%s got %s from %s", name, b[:n], from), from)
		}
	}()
}

// askUDP sends a datagram from a port of the pod and returns the answer.
func askUDP(t *testing.T, ns *netns.Handle, d net.Dialer, from int, to string) string {
	t.Helper()
	if from != 0 {
		d.LocalAddr = &net.UDPAddr{IP: podIP.AsSlice(), Port: from}
	}
	var c net.Conn
	check(t, ns.Do(func() (err error) {
		c, err = d.DialContext(t.Context(), "udp4", to)
		return err
	}))
	defer c.Close()
	b := make([]byte, 512)
	for range 5 { // a datagram may be lost
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Write([]byte("query")); err != nil {
			return err.Error()
		}
		if n, err := c.Read(b); err == nil {
			return string(b[:n])
		}
	}
	return "no answer"
}

// Queries of programs reach the proxy, over UDP and TCP, and their answers seem to come from
// the server that was asked; the proxy's own queries reach that server, also from a port that a program asked from a moment before.
func TestApplyRedirectsNames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		names *Names
	}{{"of one server", &Names{Servers: []netip.Addr{peerIP}}}, {"of every server", &Names{}}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			server := netip.AddrPortFrom(peerIP, 53).String()
			answerUDP(t, l.peer, net.ListenConfig{}, "server", "0.0.0.0:53")
			answerUDP(t, l.peer, net.ListenConfig{}, "other", "0.0.0.0:54")
			answerUDP(t, l.pod, net.ListenConfig{Control: proxySocket.Control}, "proxy", fmt.Sprintf("127.0.0.1:%d", NamesPort))
			l.serve(t, l.peer, "server", 53)
			ln, err := l.pod.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", NamesPort))
			check(t, err)
			t.Cleanup(func() { ln.Close() })
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					fmt.Fprintf(c, "proxy for %s", originalDst(c))
					c.Close()
				}
			}()
			err = Apply(l.pod, planNames(t, Config{Names: tt.names}))
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skipf("SKIPPED, NOT TESTED: the kernel tracks no connections in zones (CONFIG_NF_CONNTRACK_ZONES): %v", err)
			}
			check(t, err)

			if got, want := askUDP(t, l.pod, net.Dialer{}, 40001, server), "proxy got query from 10.97.0.5:40001"; got != want {
				t.Errorf("a program over UDP: %s, want %s", got, want)
			}
			if got, want := askUDP(t, l.pod, proxySocket, 40001, server), "server got query from 10.97.0.5:40001"; got != want {
				t.Errorf("the proxy over UDP, from the same port: %s, want %s", got, want)
			}
			if got, want := askUDP(t, l.pod, net.Dialer{}, 40001, server), "proxy got query from 10.97.0.5:40001"; got != want {
				t.Errorf("the program again: %s, want %s", got, want)
			}
			if got := askUDP(t, l.pod, net.Dialer{}, 0, netip.AddrPortFrom(peerIP, 54).String()); !strings.HasPrefix(got, "other got query") {
				t.Errorf("another port over UDP: %s", got)
			}
			if got, want := call(l.pod, net.Dialer{}, server), "proxy for "+server; got != want {
				t.Errorf("a program over TCP: %s, want %s", got, want)
			}
			if got := call(l.pod, proxySocket, server); !strings.HasPrefix(got, "server:53 from 10.97.0.5") {
				t.Errorf("the proxy over TCP: %s", got)
			}
		})
	}
}
