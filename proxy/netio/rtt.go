package netio

import (
	"time"

	"golang.org/x/sys/unix"
)

// RTT is the kernel's estimate of how long it takes to the peer and back; 0 if there is none.
func (c *Conn) RTT() time.Duration {
	if c.raw == nil {
		return 0
	}
	var d time.Duration
	_ = c.raw.rc.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			d = time.Duration(info.Rtt) * time.Microsecond
		}
	})
	return d
}
