package netns

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// SetLoopbackUp brings the loopback link of the calling thread's namespace up.
func SetLoopbackUp() error {
	h, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("netns: open netlink: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("netns: find lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("netns: set lo up: %w", err)
	}
	return nil
}
