//go:build !race

package netio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls of the data path that [sockcall] has not.

func sysWritev(fd uintptr, v []syscall.Iovec) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
	return int(n), errno
}

// epollNow takes what is ready, without waiting.
func epollNow(fd uintptr, events []unix.EpollEvent) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	return int(n), errno
}
