package server

import (
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// cgroupMemory is the memory limit of our cgroup and those above it, the least of them in
// bytes; ok is false if there is none. self is /proc/self/cgroup, root is where cgroups are mounted: the
// unified hierarchy (v2) at root itself, the memory controller of v1 at root/memory.
func cgroupMemory(self, root string) (bytes uint64, ok bool) {
	b, err := os.ReadFile(self)
	if err != nil {
		return 0, false
	}
	least := uint64(math.MaxUint64)
	for line := range strings.Lines(string(b)) {
		// hierarchy ID : controllers : path (cgroups(7))
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		switch {
		case id == "0" && controllers == "":
			least = min(least, leastLimit(root, group, "memory.max"))
		case hasController(controllers, "memory"):
			least = min(least, leastLimit(root+"/memory", group, "memory.limit_in_bytes"))
		}
	}
	return least, least != math.MaxUint64
}

func hasController(list, name string) bool {
	for c := range strings.SplitSeq(list, ",") {
		if c == name {
			return true
		}
	}
	return false
}

// unlimited is what v1 says for no limit, and anything near it: no machine has an exbibyte.
const unlimited = 1 << 60

// leastLimit reads a group's limit and those above it. Inside a container the path is
// the host's or the namespace's; levels that are not there are passed over.
func leastLimit(root, group, file string) uint64 {
	least := uint64(math.MaxUint64)
	for p := path.Clean("/" + group); ; p = path.Dir(p) {
		if b, err := os.ReadFile(path.Join(root, p, file)); err == nil {
			n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64) // v2 says "max" for none
			if err == nil && n > 0 && n < unlimited {
				least = min(least, n)
			}
		}
		if p == "/" {
			return least
		}
	}
}
