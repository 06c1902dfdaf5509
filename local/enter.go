// Package local runs a mesh on one machine without Kubernetes, Docker or root.
//
// [Enter] moves the program into namespaces of its own: a user namespace when
// it is not root, and network, mount, PID, host name and IPC namespaces in any
// case. There [Runtime.Run] makes a bridge, runs the pods of the Deployments
// that the control plane holds as processes in network namespaces, each with a
// sidecar and transparent capture, answers DNS, and publishes the pods back to
// the control plane. The machine's own network, mounts and processes are never
// touched, and when the program ends in whatever way, the kernel removes all of
// it: what remains is the state directory.
//
// The package reads no environment and no flags; see [Settings] and [EnterConfig].
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names under which the program runs itself again; they show in ps.
const (
	argInit   = "weft: init"
	argInside = "weft: mesh"
)

// EnterConfig says how to enter. The three processes of one mesh (the one the
// user started, init, and the runtime) come by Enter with the same config.
type EnterConfig struct {
	Argv     []string          // os.Args; the program runs itself again with them
	StateDir string            // absolute; made with mode 0700
	Listen   map[string]string // name → TCP address on the machine, like "ingress" → "127.0.0.1:8080"
	Env      []string          // environment of the inner program; nil means ours
	Stdin    *os.File          // relayed to the inner program line by line as it is read; nil means none
}

// Inside is what the inner program gets from Enter.
type Inside struct {
	Listeners map[string]*net.TCPListener // by the names in EnterConfig.Listen
	Rootless  bool                        // we live in a user namespace, as its root
	UID, GID  int                         // of the user outside
	OwnProc   bool                        // /proc shows our own PID namespace
}

// handoff is what one process tells the next about the descriptors it gets.
type handoff struct {
	Rootless bool
	UID, GID int
	OwnProc  bool
	Names    []string // of the listeners, in the order of their descriptors
}

// Enter moves the program into its namespaces by running it again inside them.
//
// In the inner program it returns an Inside at once, and the caller goes on. In
// the program that the user started, and in init, it blocks until the inner one
// has ended and returns its exit code; the caller must exit with it. Interrupts
// and SIGTERM go to the inner program, which should drain; a second one kills
// it. Nothing but parsing the command line may happen before Enter.
func Enter(ctx context.Context, c EnterConfig) (in *Inside, code int, err error) {
	switch c.Argv[0] {
	case argInside:
		in, err = arrive()
		return in, exitCode(err), err
	case argInit:
		code, err = runInit(c)
		return nil, code, err
	}
	code, err = runOuter(ctx, c)
	return nil, code, err
}

func exitCode(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// runOuter holds the lock and the listeners and waits for init.
func runOuter(ctx context.Context, c EnterConfig) (int, error) {
	lock, err := takeLock(c.StateDir)
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	names, files, err := openListeners(c.Listen)
	defer closeAll(files)
	if err != nil {
		return 1, err
	}
	// Init sees the end of this pipe when we are gone, even if the thread that
	// started it lives on.
	leash, hold, err := os.Pipe()
	if err != nil {
		return 1, fmt.Errorf("local: make pipe: %w", err)
	}
	defer hold.Close()
	defer leash.Close()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH)
	defer signal.Stop(signals)

	// The parent-death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := startInit(c, names, append([]*os.File{leash, lock}, files...))
	if err != nil {
		return 1, err
	}
	closeAll(files)
	return attend(ctx, cmd, signals)
}

// cancelDelay is the time a signal may take to reach us after it ended our context.
const cancelDelay = 100 * time.Millisecond

// attend waits for init and passes signals on.
func attend(ctx context.Context, cmd *exec.Cmd, signals <-chan os.Signal) (int, error) {
	ended := make(chan struct{})
	relayed := make(chan struct{})
	go func() {
		defer close(relayed)
		done, told := ctx.Done(), false
		var cancelled <-chan time.Time
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGWINCH {
					cmd.Process.Signal(s)
					continue
				}
				if told {
					cmd.Process.Kill()
					continue
				}
				told = true
				if s == syscall.SIGHUP || s == syscall.SIGQUIT {
					s = syscall.SIGTERM
				}
				cmd.Process.Signal(s)
			case <-done:
				// A signal may have ended ctx: then it comes here as well, and
				// must not count twice.
				done, cancelled = nil, time.After(cancelDelay)
			case <-cancelled:
				if !told {
					told = true
					cmd.Process.Signal(syscall.SIGTERM)
				}
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	<-relayed
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, fmt.Errorf("local: wait for the mesh: %w", err)
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// startInit starts init in new namespaces: plainly as root, else (or if root
// may not) in a user namespace.
func startInit(c EnterConfig, names []string, files []*os.File) (*exec.Cmd, error) {
	root := os.Geteuid() == 0
	var err error
	for _, rootless := range []bool{false, true} {
		if !rootless && !root {
			continue
		}
		var cmd *exec.Cmd
		if cmd, err = tryInit(c, names, files, rootless); err == nil {
			return cmd, nil
		}
	}
	return nil, diagnose(err, root, readFile)
}

func tryInit(c EnterConfig, names []string, files []*os.File, rootless bool) (*exec.Cmd, error) {
	h := handoff{Rootless: rootless, UID: os.Getuid(), GID: os.Getgid(), Names: names}
	note, err := h.file()
	if err != nil {
		return nil, err
	}
	defer note.Close()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{argInit}, c.Argv[1:]...), Env: c.Env,
		Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: append([]*os.File{note}, files...)}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		// Out of the terminal's foreground group: Ctrl-C reaches us only, and
		// we pass it on once.
		Setpgid: true,
	}
	if rootless {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	stdin, err := relayStdin(c.Stdin)
	if err != nil {
		return nil, err
	}
	if stdin != nil {
		defer stdin.Close()
		cmd.Stdin = stdin
	}
	return cmd, cmd.Start()
}

// relayStdin copies a terminal into a pipe, because a process outside the
// terminal's foreground group may not read it. The copying ends with our
// process: a read of a terminal cannot be called off.
func relayStdin(from *os.File) (*os.File, error) {
	if from == nil {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("local: make pipe: %w", err)
	}
	go func() {
		io.Copy(w, from)
		w.Close()
	}()
	return r, nil
}

// openListeners opens the machine's listeners, sorted by name.
func openListeners(listen map[string]string) (names []string, files []*os.File, err error) {
	for _, name := range slices.Sorted(maps.Keys(listen)) {
		ln, err := openPort(name, listen[name])
		if err != nil {
			return names, files, err
		}
		f, err := ln.(*net.TCPListener).File()
		ln.Close()
		if err != nil {
			return names, files, fmt.Errorf("local: keep the %s port: %w", name, err)
		}
		names, files = append(names, name), append(files, f)
	}
	return names, files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// file puts the handoff into a pipe, whose buffer holds it.
func (h handoff) file() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("local: make pipe: %w", err)
	}
	defer w.Close()
	if err := json.NewEncoder(w).Encode(h); err != nil {
		r.Close()
		return nil, fmt.Errorf("local: write handoff: %w", err)
	}
	return r, nil
}

// First descriptors that init and the runtime inherit.
const (
	fdHandoff = 3
	fdLeash   = 4 // init only
)

// inherited takes over a descriptor; children do not get it unless it is
// passed on.
func inherited(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

func readHandoff() (h handoff, err error) {
	f := inherited(fdHandoff, "handoff")
	if f == nil {
		return h, errors.New("local: this program was not started by weft")
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(&h); err != nil {
		return h, fmt.Errorf("local: read handoff (was this program started by weft?): %w", err)
	}
	return h, nil
}

// arrive takes over what init passed on.
func arrive() (*Inside, error) {
	h, err := readHandoff()
	if err != nil {
		return nil, err
	}
	// Setting a terminal's mode from outside its foreground group would stop us.
	signal.Ignore(syscall.SIGTTOU)
	unix.CloseOnExec(fdHandoff + 1) // the lock: held until we end
	in := &Inside{Listeners: map[string]*net.TCPListener{}, Rootless: h.Rootless, UID: h.UID, GID: h.GID, OwnProc: h.OwnProc}
	for i, name := range h.Names {
		f := inherited(fdHandoff+2+i, name)
		ln, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("local: take over the %s port: %w", name, err)
		}
		tcp, ok := ln.(*net.TCPListener)
		if !ok {
			ln.Close()
			return nil, fmt.Errorf("local: the %s port is a %T, want TCP", name, ln)
		}
		in.Listeners[name] = tcp
	}
	return in, nil
}
