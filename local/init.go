package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// runInit is process 1 of the mesh's PID namespace. It prepares mounts, starts
// the runtime, passes signals on and reaps orphans. When it ends, for whatever
// reason, the kernel kills every other process of the mesh.
func runInit(c EnterConfig) (int, error) {
	h, err := readHandoff()
	if err != nil {
		return 1, err
	}
	leash := inherited(fdLeash, "leash")
	const fdLock = fdLeash + 1
	pass := []int{fdLock}
	unix.CloseOnExec(fdLock)
	for i := range h.Names {
		unix.CloseOnExec(fdLock + 1 + i)
		pass = append(pass, fdLock+1+i)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 1, diagnose(err, !h.Rootless, readFile)
	}
	// A container's masked /proc makes the kernel refuse a new one. Then we
	// live with the outer one and do without what needs our own.
	h.OwnProc = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGWINCH)
	pid, err := startInside(c, h, pass)
	if err != nil {
		return 1, err
	}
	for _, fd := range pass[1:] { // the lock stays: we are part of the mesh
		unix.Close(fd)
	}
	go func() {
		for s := range signals {
			syscall.Kill(pid, s.(syscall.Signal))
		}
	}()
	go func() {
		io.Copy(io.Discard, leash)
		os.Exit(128 + int(syscall.SIGKILL)) // weft was killed: so is the mesh
	}()
	return reap(pid), nil
}

func startInside(c EnterConfig, h handoff, pass []int) (int, error) {
	note, err := h.file()
	if err != nil {
		return 0, err
	}
	defer note.Close()
	files := []uintptr{0, 1, 2, note.Fd()}
	for _, fd := range pass {
		files = append(files, uintptr(fd))
	}
	env := c.Env
	if env == nil {
		env = os.Environ()
	}
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{argInside}, c.Argv[1:]...), &syscall.ProcAttr{Env: env, Files: files})
	if err != nil {
		return 0, fmt.Errorf("local: start the runtime inside: %w", err)
	}
	return pid, nil
}

// reap collects ended processes until the runtime has ended, and returns its
// exit code.
func reap(runtime int) int {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1
		case pid != runtime:
		case ws.Signaled():
			return 128 + int(ws.Signal())
		default:
			return ws.ExitStatus()
		}
	}
}
