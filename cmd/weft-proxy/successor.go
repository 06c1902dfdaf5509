package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
)

// successor starts the process that takes over from this one.
type successor struct {
	path    string // of our program, as it was when we started: an upgrade puts the new one there
	err     error  // why there is no path
	args    []string
	stdout  *os.File
	stderr  *os.File
	running atomic.Bool
}

func newSuccessor(args []string, stdout, stderr *os.File) *successor {
	path, err := os.Executable()
	return &successor{path: path, err: err, args: successorArgs(args), stdout: stdout, stderr: stderr}
}

// start runs the successor. This process goes on whatever becomes of it: when it serves it says so over the socket in the state directory.
func (s *successor) start() {
	if !s.running.CompareAndSwap(false, true) {
		s.say("a successor is starting already")
		return
	}
	if s.err != nil {
		s.running.Store(false)
		s.say("our own program cannot be found: %v", s.err)
		return
	}
	cmd := exec.Command(s.path, s.args...)
	cmd.Stdout, cmd.Stderr = s.stdout, s.stderr // everything else is close-on-exec
	if err := cmd.Start(); err != nil {
		s.running.Store(false)
		s.say("no successor: %v", err)
		return
	}
	s.say("started %s as process %d to take over", s.path, cmd.Process.Pid)
	go func() { // ends with one of the two processes
		err := cmd.Wait()
		s.running.Store(false)
		s.say("the successor, process %d, ended: %v", cmd.Process.Pid, err)
	}()
}

func (s *successor) say(format string, args ...any) {
	fmt.Fprintf(s.stderr, "weft-proxy: hot restart: "+format+"\n", args...)
}

// successorArgs are our arguments with --hot-restart and without descriptors, whose numbers mean nothing to another process.
func successorArgs(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(args[i], "=")
		switch name {
		case "--inherit-listener", "--notify-fd":
			if !joined {
				i++
			}
		case "--hot-restart":
		default:
			out = append(out, args[i])
		}
	}
	return append(slices.Clip(out), "--hot-restart")
}
