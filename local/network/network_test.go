package network

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weft.mesh/weft/node/netns"
)

var node = netip.MustParsePrefix("10.97.0.1/16")

// inNode runs f in a fresh network namespace that plays the node.
func inNode(t *testing.T, f func(t *testing.T) error) {
	t.Helper()
	h, err := netns.New()
	if netns.Unsupported(err) {
		t.Skipf("SKIPPED, NOT TESTED: network namespaces need CAP_SYS_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Do(func() error { return f(t) }); err != nil {
		t.Fatal(err)
	}
}

func attach(n *Network, ip string) (*netns.Handle, error) {
	pod, err := netns.New()
	if err != nil {
		return nil, err
	}
	if err := pod.Do(netns.SetLoopbackUp); err != nil {
		return nil, err
	}
	return pod, n.Attach(pod, netip.MustParseAddr(ip))
}

func TestPodsReachEachOtherAndTheNode(t *testing.T) {
	inNode(t, func(t *testing.T) error {
		n, err := Up("weft0", node)
		if err != nil {
			return err
		}
		a, err := attach(n, "10.97.0.2")
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := attach(n, "10.97.3.4")
		if err != nil {
			return err
		}
		defer b.Close()
		ln, err := b.Listen("tcp4", "0.0.0.0:80")
		if err != nil {
			return err
		}
		defer ln.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c, err := a.Dial(ctx, "tcp4", "10.97.3.4:80")
		if err != nil {
			return err
		}
		if from := c.LocalAddr().String(); !strings.HasPrefix(from, "10.97.0.2:") {
			t.Errorf("called from %s", from)
		}
		c.Close()
		// Nothing listens on the node: a refusal is an answer.
		if _, err := a.Dial(ctx, "tcp4", "10.97.0.1:80"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("the node: %v", err)
		}
		// There is no way out.
		if _, err := a.Dial(ctx, "tcp4", "192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("the world: %v", err)
		}
		bridge, err := netlink.LinkByName("weft0")
		if err != nil {
			return err
		}
		before := bridge.Attrs().HardwareAddr.String()
		for range 2 { // a link that is gone is no error
			if err := n.Detach(netip.MustParseAddr("10.97.0.2")); err != nil {
				return err
			}
		}
		bridge, err = netlink.LinkByName("weft0")
		if after := bridge.Attrs().HardwareAddr.String(); after != before {
			t.Errorf("the bridge's hardware address went from %s to %s: pods would lose the name server", before, after)
		}
		return err
	})
}

func TestAttachRefusesForeignAddresses(t *testing.T) {
	inNode(t, func(t *testing.T) error {
		n, err := Up("weft0", node)
		if err != nil {
			return err
		}
		for _, ip := range []string{"10.98.0.2", "10.97.0.1"} {
			if pod, err := attach(n, ip); err == nil {
				t.Errorf("%s was attached", ip)
				pod.Close()
			}
		}
		return nil
	})
}

func TestUpRefusesANamespaceWithOtherLinks(t *testing.T) {
	inNode(t, func(t *testing.T) error {
		if _, err := Up("weft0", node); err != nil {
			return err
		}
		if _, err := Up("weft1", node); err == nil || !strings.Contains(err.Error(), "not a network namespace of our own") {
			t.Errorf("got %v", err)
		}
		return nil
	})
	if os.Getuid() == 0 {
		// The machine's own network must be refused, whatever it looks like.
		links, err := netlink.LinkList()
		if err == nil && len(links) > 1 {
			if err := refuseForeign(); err == nil {
				t.Log("the machine has no link that is up; nothing to refuse")
			}
		}
	}
}
