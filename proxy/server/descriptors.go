package server

import (
	"math"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/proxy/netio"
)

// reservedDescriptors is how many descriptors there is a table for from the beginning: 128 KB of kernel memory.
const reservedDescriptors = 16 << 10

// reserveDescriptors makes the kernel's table of our descriptors large now. It grows by doubling, and for that the kernel waits
// until no processor can be reading the old one: between 5 and 35 ms (measured on two busy processors), in which each
// thread that opens a socket stands still with all goroutines of its processor. So a burst of
// connections would hold up all requests at 256, 512 and 1,024 descriptors. It is only a preparation: no
// error is one of the program's.
func reserveDescriptors() {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // any descriptor
	if err != nil {
		return
	}
	defer unix.Close(fd)
	netio.GiveWay() // has a descriptor of its own, from now on
	most := min(reservedDescriptors, descriptorLimit())
	if last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, most-1); err == nil {
		_ = unix.Close(last) // the table stays
	}
}

// descriptorLimit is how many descriptors the process may have.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(l.Cur)
}
