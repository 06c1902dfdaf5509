package netio

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// GiveWay lets everybody else go first who can run, and whoever the network has something for. Who serves one
// connection without end calls it now and then, so that the others wait for microseconds.
//
// [runtime.Gosched] does the first half only: as long as anything can run, the runtime looks at
// the network every 10 ms, so two connections that always have something to do make all others wait that long. Those
// who give way stand in line, and one goes on for each look at the network, which therefore comes after the work of
// one turn, however many they are. It costs a system call.
func GiveWay() {
	b := theBell()
	if b == nil || b.rc.Read(b.ring) != nil {
		runtime.Gosched()
	}
}

// bell is an event that only a look at the network brings.
type bell struct {
	file *os.File        // an eventfd
	rc   syscall.RawConn // of file; who reads it waits for those who read it already
	ring func(fd uintptr) bool
	rung bool // only in ring
}

// theBell is the process's: there is one poller too. Nil: there can be none, which is no reason to stop.
var theBell = sync.OnceValue(func() *bell {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil
	}
	b := &bell{file: os.NewFile(uintptr(fd), "bell")}
	if b.rc, err = b.file.SyscallConn(); err != nil {
		_ = b.file.Close()
		return nil
	}
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	b.ring = func(fd uintptr) bool {
		if b.rung {
			b.rung = false
			return true
		}
		// Each write is an event of its own, and nothing has to be read: the counter is full after 2^64.
		if _, err := unix.Write(int(fd), one); err != nil {
			runtime.Gosched()
			return true
		}
		b.rung = true
		return false
	}
	return b
})
