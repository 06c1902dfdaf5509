//go:build race

package sockcall

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// With the race detector the calls go through package syscall, which tells it
// of the buffers and that what was written before is read after.

// Read is read(2) into p, which must not be empty.
func Read(fd uintptr, p []byte) (int, syscall.Errno) { return Result(syscall.Read(int(fd), p)) }

// Write is write(2) of p, which must not be empty.
func Write(fd uintptr, p []byte) (int, syscall.Errno) { return Result(syscall.Write(int(fd), p)) }

// Epoll takes what is ready of an epoll instance, as much as there is room for in events, which must not be empty.
func Epoll(fd uintptr, events []unix.EpollEvent) (int, syscall.Errno) {
	return Result(unix.EpollWait(int(fd), events, 0))
}
