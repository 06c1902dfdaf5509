// Package process starts programs inside a pod's namespaces and watches them.
//
// A program runs in a session and process group of its own, so that a terminal's
// Ctrl-C does not reach it and that signals reach all of its group. It does not
// get a parent-death signal, because that is tied to the starting thread;
// instead everything of a mesh lives in one PID namespace, which the kernel
// ends with the mesh. What a program leaves behind in its process group is
// killed when it ends. What left the group too is found by its environment
// ([EndMarked]) or is the sandbox's to kill.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/local/sandbox"
)

// outputDelay is how long output is awaited after a program has ended while
// programs that it left behind still hold the pipe.
const outputDelay = 500 * time.Millisecond

// Caller is the user for whom the mesh runs, when that is not the user we
// appear to be: without root the mesh lives in a user namespace as its root.
type Caller struct{ UID, GID int }

// Spec is one program to start.
type Spec struct {
	Argv   []string
	Env    []string // the whole environment
	Dir    string   // "" means /
	Stdin  *os.File // nil means /dev/null
	Stdout io.Writer
	Stderr io.Writer // may be the same as Stdout
	// Files are passed on as descriptors 3, 4, …
	Files []*os.File
	// As runs the program as this user with no privilege over the mesh's
	// namespaces. Nil: as we are.
	As *Caller
	// Sidecar gives the program the sidecar's view of the files.
	Sidecar bool
}

// Process is a running or ended program.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// Start runs spec inside the sandbox; a nil sandbox means the mesh's own
// namespaces.
func Start(s *sandbox.Sandbox, spec Spec) (*Process, error) {
	if len(spec.Argv) == 0 {
		return nil, errors.New("process: no command")
	}
	p := &Process{done: make(chan struct{})}
	start := func() error {
		path, err := lookPath(spec.Argv[0], spec.Dir, spec.Env)
		if err != nil {
			return err
		}
		p.cmd = command(path, spec)
		return p.cmd.Start()
	}
	var err error
	switch {
	case s == nil:
		err = start()
	case spec.Sidecar:
		err = s.RunSidecar(start)
	default:
		err = s.Run(start)
	}
	if err != nil {
		return nil, fmt.Errorf("process: start %q: %w", spec.Argv[0], err)
	}
	go func() {
		p.err = p.cmd.Wait()
		if errors.Is(p.err, exec.ErrWaitDelay) {
			p.err = nil // ended well; something it started still writes
		}
		// What it left in its group would keep its ports from its successor.
		unix.Kill(-p.PID(), unix.SIGKILL)
		close(p.done)
	}()
	return p, nil
}

func command(path string, spec Spec) *exec.Cmd {
	dir := spec.Dir
	if dir == "" {
		dir = "/"
	}
	cmd := &exec.Cmd{Path: path, Args: spec.Argv, Env: spec.Env, Dir: dir, Stdout: spec.Stdout, Stderr: spec.Stderr,
		ExtraFiles: spec.Files, WaitDelay: outputDelay, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if spec.Stdin != nil {
		cmd.Stdin = spec.Stdin
	}
	if spec.Env == nil {
		cmd.Env = []string{} // nil would pass ours on
	}
	if spec.As != nil {
		// A user namespace below ours, in which the caller is the caller
		// again: the program sees the right user, and execve drops every
		// capability over the namespaces that belong to the mesh.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: spec.As.UID, HostID: 0, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: spec.As.GID, HostID: 0, Size: 1}}
	}
	return cmd
}

// lookPath finds the program as execvp does, in the PATH of env.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join("/", dir, name)
		}
		return name, executable(name)
	}
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, d := range filepath.SplitList(path) {
		if d == "" || !filepath.IsAbs(d) {
			continue
		}
		if p := filepath.Join(d, name); executable(p) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%q is in none of the %d folders of PATH: %w", name, len(filepath.SplitList(path)), exec.ErrNotFound)
}

func executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return fmt.Errorf("%s is a folder", path)
	}
	return unix.Access(path, unix.X_OK)
}

// PID is the number of the process in our PID namespace.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends sig to the program's process group.
func (p *Process) Signal(sig syscall.Signal) {
	select {
	case <-p.done:
		return // the number may belong to another by now
	default:
	}
	if unix.Kill(-p.PID(), sig) != nil {
		p.cmd.Process.Signal(sig) // before it became a group leader
	}
}

// ExitCode is that of an ended program; 128 plus the signal's number when a
// signal ended it, as shells say it.
func (p *Process) ExitCode() int {
	st := p.cmd.ProcessState
	if st == nil {
		return -1
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return st.ExitCode()
}

// Reason says how an ended program ended: "exit code 3", "signal: killed".
func (p *Process) Reason() string {
	st := p.cmd.ProcessState
	if st == nil {
		return fmt.Sprint(p.err)
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "signal: " + ws.Signal().String()
	}
	return fmt.Sprintf("exit code %d", st.ExitCode())
}

// RSS is the resident memory of a running process in bytes; 0 when it cannot
// be read.
func RSS(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
