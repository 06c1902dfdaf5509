//go:build !race

package netio

import (
	"syscall"
	"unsafe"
)

// System calls of the data path that [sockcall] has not.

func sysWritev(fd uintptr, v []syscall.Iovec) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
	return int(n), errno
}
