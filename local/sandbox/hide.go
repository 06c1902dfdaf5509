package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hide puts an empty file system over the folder c.Hide in the mount namespace
// of the calling thread, and binds back what is said to stay: c.Dir, c.Keep and
// c.Private. Paths that are not below c.Hide are visible anyway; c.Hide itself
// is never bound back.
func hide(c Config) error {
	if c.Hide == "" {
		return nil
	}
	kept, err := openKept(c.Hide, append(append([]string{c.Dir}, c.Keep...), c.Private...))
	defer func() {
		for _, k := range kept {
			unix.Close(k.fd)
		}
	}()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", c.Hide, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return fmt.Errorf("hide %s: %w", c.Hide, err)
	}
	for _, k := range kept {
		if err := os.MkdirAll(k.path, 0o700); err != nil {
			return fmt.Errorf("keep %s: %w", k.path, err)
		}
		// The path would lead into the empty file system now.
		if err := unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", k.fd), k.path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("keep %s: %w", k.path, err)
		}
	}
	return nil
}

// withhold takes the folders that hide kept for the sidecar out of the mount
// namespace of the calling thread.
func withhold(c Config) error {
	for _, path := range c.Private {
		if c.Hide == "" || !below(c.Hide, path) {
			continue
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

type keptDir struct {
	path string
	fd   int
}

// openKept opens the existing folders among paths that lie below root, outer
// ones first. What it opened is returned with an error too.
func openKept(root string, paths []string) ([]keptDir, error) {
	var out []keptDir
	paths = slices.Clone(paths)
	slices.Sort(paths)
	for i, path := range paths {
		if !below(root, path) || i > 0 && path == paths[i-1] {
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("keep %s: %w", path, err)
		}
		out = append(out, keptDir{path, fd})
	}
	return out, nil
}

// below says whether path is inside the folder root, and not root itself.
func below(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}
