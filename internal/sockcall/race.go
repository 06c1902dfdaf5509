//go:build race

package sockcall

import "syscall"

// With the race detector the calls go through package syscall, which tells it
// of the buffers and that what was written before is read after.

// Read is read(2) into p, which must not be empty.
func Read(fd uintptr, p []byte) (int, syscall.Errno) { return Result(syscall.Read(int(fd), p)) }

// Write is write(2) of p, which must not be empty.
func Write(fd uintptr, p []byte) (int, syscall.Errno) { return Result(syscall.Write(int(fd), p)) }
