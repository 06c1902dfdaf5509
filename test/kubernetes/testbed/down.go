package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Down ends the cluster and removes what it left in the kernel and on disk,
// also if the one that started it crashed. With no cluster it does nothing.
func (b *Bed) Down() error {
	if err := root("stop a cluster"); err != nil {
		return err
	}
	pids := b.nodeProcesses()
	for _, pid := range pids {
		// All processes of a pid namespace end with its first.
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("node process %d: %w", pid, err)
		}
	}
	for start := time.Now(); len(b.nodeProcesses()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			return fmt.Errorf("node processes %v do not end", b.nodeProcesses())
		}
	}
	err := errors.Join(removeLinks(), b.removeCgroups(), os.RemoveAll(b.Run()))
	// It was made as a mount point. While nodes of another checkout run it is theirs too: to remove a directory
	// takes away what is mounted on it in all namespaces. It stays if it has something of others.
	if len(nodeProcesses(func(string) bool { return true })) == 0 {
		os.Remove("/etc/cni")
	}
	return err
}

// nodeProcesses are the pids, in this namespace, of the nodes' first processes, found by what they run.
func (b *Bed) nodeProcesses() []int {
	return nodeProcesses(func(program string) bool { return program == b.Bin("testbed") })
}

func nodeProcesses(of func(program string) bool) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, f := range files {
		cmdline, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		argv := bytes.Split(cmdline, []byte{0})
		if len(argv) > 2 && filepath.Base(string(argv[0])) == "testbed" && string(argv[1]) == "node" && of(string(argv[0])) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// NodeProcess is the pid of a node's first process, for nsenter.
func (b *Bed) NodeProcess(n Node) (int, error) {
	for _, pid := range b.nodeProcesses() {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if argv := bytes.Split(cmdline, []byte{0}); len(argv) > 2 && string(argv[2]) == strconv.Itoa(int(n)) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%s is not running", n)
}

// Nodes are the running nodes.
func (b *Bed) Nodes() []Node {
	var all []Node
	for n := Node(1); n <= maxNodes; n++ {
		if _, err := b.NodeProcess(n); err == nil {
			all = append(all, n)
		}
	}
	return all
}
