//go:build race

package netio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// With the race detector the calls go through package syscall, which tells it
// of the buffers and that what was written before is read after.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) { return plainCall(syscall.Read(int(fd), p)) }

func sysWrite(fd uintptr, p []byte) (int, syscall.Errno) { return plainCall(syscall.Write(int(fd), p)) }

func sysWritev(fd uintptr, v []syscall.Iovec) (int, syscall.Errno) {
	var p []byte
	for _, s := range v {
		p = append(p, unsafe.Slice(s.Base, s.Len)...)
	}
	return sysWrite(fd, p)
}

func plainCall(n int, err error) (int, syscall.Errno) {
	if err == nil {
		return n, 0
	}
	errno, ok := err.(syscall.Errno)
	if !ok {
		errno = syscall.EIO
	}
	return 0, errno
}

func epollNow(fd uintptr, events []unix.EpollEvent) (int, syscall.Errno) {
	return plainCall(unix.EpollWait(int(fd), events, 0))
}
