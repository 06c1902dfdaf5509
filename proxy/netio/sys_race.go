//go:build race

package netio

import (
	"syscall"
	"unsafe"

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
