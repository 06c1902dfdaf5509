package testbed

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the mounted cgroup trees: one for version 2, several for version 1.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}
	}
	var all []string
	for _, name := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"} {
		dir := filepath.Join(cgroupRoot, name)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			all = append(all, dir)
		}
	}
	return all
}

// enterCgroups makes the node's groups and moves the calling process into
// them, so that all it starts lies below. The node's own are in "daemons" where that means something: with version 2 a
// group with children has no processes of its own, and processor time is shared between that group and the pods', as
// between a machine's services and its pods; beside the pods' group each of their threads would count as much as half of all pods.
func (b *Bed) enterCgroups(n Node) error {
	for _, h := range hierarchies() {
		dir := filepath.Join(h, b.cgroup(n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		join := dir
		if base := filepath.Base(h); h == cgroupRoot || base == "cpu" || base == "cpuacct" { // the last two may be one tree
			join = filepath.Join(dir, "daemons")
			if err := os.MkdirAll(join, 0o755); err != nil {
				return err
			}
		}
		if filepath.Base(h) == "cpuset" { // empty in a new group, and then nobody may enter
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				if err := copyValue(filepath.Join(h, f), filepath.Join(dir, f)); err != nil {
					return err
				}
			}
		}
		if err := weigh(dir); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(join, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
		if h == cgroupRoot {
			if err := delegate(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// weigh gives a node the share of processor time of 40 processes: a group counts as one, and
// a node beside a compiler would starve otherwise.
func weigh(dir string) error {
	for file, value := range map[string]string{"cpu.shares": "40960", "cpu.weight": "4000"} { // versions 1 and 2; only one is there
		file = filepath.Join(dir, file)
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// delegate lets children of a version 2 group use its controllers.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyValue(from, to string) error {
	v, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, bytes.TrimSpace(v), 0o644)
}

// removeCgroups removes the groups of all nodes, which must have no processes any more.
func (b *Bed) removeCgroups() error {
	var last error
	for range 50 {
		if last = b.tryRemoveCgroups(); last == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond) // the kernel lets go of the last process a moment after it ended
	}
	return last
}

func (b *Bed) tryRemoveCgroups() error {
	var errs []error
	// Also where the node did not enter itself: runc makes groups in every tree that is mounted.
	for _, tree := range []string{"", "*"} {
		var tops []string
		for n := Node(1); n <= maxNodes; n++ {
			here, _ := filepath.Glob(filepath.Join(cgroupRoot, tree, b.cgroup(n)))
			tops = append(tops, here...)
		}
		for _, top := range tops {
			var dirs []string
			filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			slices.Reverse(dirs) // children first
			for _, d := range dirs {
				if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}
