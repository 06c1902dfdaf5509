//go:build race

package netio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/internal/sockcall"
)

// With the race detector the calls go as those of [sockcall] do.

func sysWritev(fd uintptr, v []syscall.Iovec) (int, syscall.Errno) {
	var p []byte
	for _, s := range v {
		p = append(p, unsafe.Slice(s.Base, s.Len)...)
	}
	return sockcall.Write(fd, p)
}

func epollNow(fd uintptr, events []unix.EpollEvent) (int, syscall.Errno) {
	return sockcall.Result(unix.EpollWait(int(fd), events, 0))
}
