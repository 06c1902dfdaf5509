//go:build !race

package sockcall

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is recv(2) into p, which must not be empty. It is cheaper than read(2), which asks the file system's layer first: some
// 0.1 to 0.3 µs of a call, and of a write as much.
func Read(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
	return int(n), errno
}

// Write is send(2) of p, which must not be empty.
func Write(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// Epoll takes what is ready of an epoll instance, as much as there is room for in events, which must not be empty.
func Epoll(fd uintptr, events []unix.EpollEvent) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	return int(n), errno
}
