package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// nscdDirs are sockets of name service caches: they would answer with the
// machine's names, so the pod sees empty folders there.
var nscdDirs = []string{"/run/nscd", "/var/run/nscd"}

// resolvConf names the mesh's server. ndots:5 is Kubernetes' value: a name
// with fewer dots is tried with the search list first. An unanswered query is given up after 10 s, as by default (resolv.conf(5)),
// and repeated more often meanwhile: the server is on this machine, and only slow when all of it is.
func resolvConf(c Config) string {
	return fmt.Sprintf("nameserver %s\nsearch %s.svc.%s svc.%s %s\noptions ndots:5 timeout:2 attempts:5\n",
		c.DNS, c.Namespace, c.Domain, c.Domain, c.Domain)
}

func hosts(c Config) string {
	return fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%s\t%s\n", c.IP, c.Hostname)
}

// nsswitch is the machine's file with the hosts line replaced: modules such as
// resolve, mdns4_minimal or myhostname would answer before DNS is asked.
func nsswitch(host []byte) string {
	var b strings.Builder
	found := false
	sc := bufio.NewScanner(bytes.NewReader(host))
	for sc.Scan() {
		line := sc.Text()
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && strings.TrimSpace(name) == "hosts" {
			line, found = "hosts: files dns", true
		}
		b.WriteString(line + "\n")
	}
	if !found {
		b.WriteString("hosts: files dns\n")
	}
	return b.String()
}

// mountFiles puts the pod's own files over the machine's, in the mount
// namespace of the calling thread.
func mountFiles(c Config) error {
	old, _ := os.ReadFile(filepath.Join(c.EtcDir, "nsswitch.conf")) // absent on musl systems
	files := map[string]string{
		"resolv.conf":   resolvConf(c),
		"hosts":         hosts(c),
		"hostname":      c.Hostname + "\n",
		"nsswitch.conf": nsswitch(old),
	}
	var missing []string
	for name, content := range files {
		own := filepath.Join(c.Dir, name)
		if err := os.WriteFile(own, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		err := bindOver(own, filepath.Join(c.EtcDir, name))
		if errors.Is(err, os.ErrNotExist) {
			missing = append(missing, name)
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		if err := shadowEtc(c, files); err != nil {
			return fmt.Errorf("%s has no %s, and a private copy cannot be made: %w", c.EtcDir, strings.Join(missing, ", "), err)
		}
	}
	for _, dir := range nscdDirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			unix.Mount("tmpfs", real, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=4k") // without it a cache may answer
		}
	}
	return nil
}

// bindOver mounts the file own over path. A symlink is followed: what programs
// open is the file it points to (/run/systemd/resolve/stub-resolv.conf, say).
func bindOver(own, path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", path, err)
	}
	if err := unix.Mount(own, real, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over %s: %w", own, real, err)
	}
	return nil
}

// shadowEtc replaces the folder by a tmpfs of symlinks to the machine's
// entries, plus the pod's files: for machines where one of these files, or
// what its symlink points to, does not exist and cannot be mounted over.
func shadowEtc(c Config, files map[string]string) error {
	below, above := filepath.Join(c.Dir, "etc-below"), filepath.Join(c.Dir, "etc-above")
	for _, d := range []string{below, above} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(c.EtcDir, below, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep %s: %w", c.EtcDir, err)
	}
	if err := unix.Mount("tmpfs", above, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	entries, err := os.ReadDir(below)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, own := files[e.Name()]; own {
			continue
		}
		target := filepath.Join(below, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			if target, err = os.Readlink(target); err != nil {
				return err
			}
		}
		if err := os.Symlink(target, filepath.Join(above, e.Name())); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(above, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount(above, c.EtcDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", c.EtcDir, err)
	}
	return nil
}
