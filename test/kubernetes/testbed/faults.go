package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Faults that a running cluster can be given, and taken from it again. The
// programs are those of a node itself: etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler on the first.

// Hold ends a program and keeps it from being started again until
// [Bed.Release]: an API server that is gone, and refuses connections.
func (b *Bed) Hold(n Node, program string) error {
	file := b.holdFile(n, program)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return err
	}
	return b.signal(n, program, unix.SIGKILL)
}

// Release lets a program that is held start again, which it does within a second.
func (b *Bed) Release(n Node, program string) error {
	if err := os.Remove(b.holdFile(n, program)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (b *Bed) holdFile(n Node, program string) string {
	return filepath.Join(b.Run(), n.String(), "held", program)
}

func (b *Bed) held(n Node, program string) bool {
	_, err := os.Stat(b.holdFile(n, program))
	return err == nil
}

// Pause stops a program without ending it: it accepts connections and does not answer.
func (b *Bed) Pause(n Node, program string) error { return b.signal(n, program, unix.SIGSTOP) }

// Continue lets a program that was paused go on.
func (b *Bed) Continue(n Node, program string) error { return b.signal(n, program, unix.SIGCONT) }

// Slow lets a program work only a part of the time, until the context ends: a
// disk or a machine that is overloaded. It returns with the program at full speed.
func (b *Bed) Slow(ctx context.Context, n Node, program string, stopped, running time.Duration) error {
	for ctx.Err() == nil {
		if err := b.Pause(n, program); err != nil {
			return err
		}
		wait(ctx, stopped)
		if err := b.Continue(n, program); err != nil {
			return err
		}
		wait(ctx, running)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Partition cuts a node off from everything else: other nodes, the API server,
// the machine. What runs on it goes on running.
func (b *Bed) Partition(n Node) error { return b.link(n, netlink.LinkSetDown) }

// Join ends a partition.
func (b *Bed) Join(n Node) error { return b.link(n, netlink.LinkSetUp) }

func (b *Bed) link(n Node, set func(netlink.Link) error) error {
	l, err := netlink.LinkByName(n.veth())
	if err != nil {
		return fmt.Errorf("%s: link %s: %w", n, n.veth(), err)
	}
	return set(l)
}

// signal sends a signal to a program of a node.
func (b *Bed) signal(n Node, program string, s unix.Signal) error {
	pids, err := b.programs(n, program)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("%s: %s does not run", n, program)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, s); err != nil {
			return fmt.Errorf("%s: %s (%d): signal %s: %w", n, program, pid, s, err)
		}
	}
	return nil
}

// KillPod ends all processes of a pod at once, by its uid, without a word to it or to the kubelet, and again those that the
// kubelet starts in it instead, until the kubelet has given the pod up and removed its cgroups. That comes after the pod is
// deleted from the API server: who does not delete it waits until the context ends, which is an error.
func (b *Bed) KillPod(ctx context.Context, uid string) error {
	if !b.hasPod(uid) {
		return fmt.Errorf("pod %s: no node has it", uid)
	}
	for b.hasPod(uid) {
		if err := b.killPod(uid); err != nil {
			return err
		}
		if wait(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("pod %s: its node still has it: %w", uid, context.Cause(ctx))
		}
	}
	return nil
}

// hasPod tells whether the kubelet of a node keeps cgroups for a pod.
func (b *Bed) hasPod(uid string) bool {
	for _, n := range b.Nodes() {
		for _, tree := range []string{"", "*"} { // version 2, and the trees of version 1
			for _, class := range []string{"", "*"} { // guaranteed pods have none
				if found, _ := filepath.Glob(filepath.Join(cgroupRoot, tree, b.cgroup(n), "kubepods", class, "pod"+uid)); len(found) > 0 {
					return true
				}
			}
		}
	}
	return false
}

func (b *Bed) killPod(uid string) error {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	for _, f := range files {
		groups, _ := os.ReadFile(f) // gone meanwhile: not it
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil || !bytes.Contains(groups, []byte("/pod"+uid+"/")) {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pod %s: kill %d: %w", uid, pid, err)
		}
	}
	return nil
}

// programs are the pids of a program in a node's own pid namespace, as this process sees them.
func (b *Bed) programs(n Node, program string) ([]int, error) {
	first, err := b.NodeProcess(n)
	if err != nil {
		return nil, err
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range files {
		dir := filepath.Dir(f)
		cmdline, _ := os.ReadFile(f) // gone meanwhile: not it
		name, _, _ := bytes.Cut(cmdline, []byte{0})
		if string(name) != b.Bin(program) {
			continue
		}
		if s, _ := os.Readlink(dir + "/ns/pid"); s != space {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
