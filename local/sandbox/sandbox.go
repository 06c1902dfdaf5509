// Package sandbox makes the namespaces of one local pod: a network namespace
// of its own, a host name, and a mount namespace in which the files of name
// resolution (/etc/resolv.conf, hosts, hostname, nsswitch.conf) are the pod's.
//
// The rest of the file system is the machine's, but for one folder that holds
// secrets and looks empty ([Config.Hide]). The sidecar has a mount namespace of
// its own, in which it sees its files there and the programs do not. A program
// that is root of the machine can undo all of this. Namespaces live as long as the
// [Sandbox] or a process in them does; they have no name and leave nothing
// behind. Addresses and links are the network package's business.
package sandbox

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/node/netns"
)

// Config describes one sandbox.
type Config struct {
	Dir       string     // folder for the pod's own files; made, and removed by Close
	Hostname  string     // the pod's name
	Namespace string     // Kubernetes namespace, for the search list
	Domain    string     // cluster domain, like cluster.local
	IP        netip.Addr // the pod's address
	DNS       netip.Addr // name server
	EtcDir    string     // where the machine's files are; "" means /etc. For tests.

	// Hide is a folder that looks empty inside, except for Dir; "" means none.
	Hide    string
	Keep    []string // folders below Hide that stay visible; missing ones are left out
	Private []string // folders below Hide that the sidecar sees, and nobody else
}

// Sandbox holds the namespaces of one pod open.
type Sandbox struct {
	Net     *netns.Handle
	mnt     *os.File // the programs' view
	sidecar *os.File // the sidecar's view
	uts     *os.File
	dir     string
}

// New makes the namespaces. It needs CAP_SYS_ADMIN.
func New(c Config) (*Sandbox, error) {
	if c.EtcDir == "" {
		c.EtcDir = "/etc"
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("sandbox %s: make folder: %w", c.Hostname, err)
	}
	s := &Sandbox{dir: c.Dir}
	if err := onThread(func() error { return s.create(c) }); err != nil {
		s.Close()
		return nil, fmt.Errorf("sandbox %s: %w", c.Hostname, err)
	}
	return s, nil
}

// create runs on a thread of its own, which ends afterwards.
func (s *Sandbox) create(c Config) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("set host name %q: %w", c.Hostname, err)
	}
	if err := hide(c); err != nil {
		return err
	}
	if err := mountFiles(c); err != nil {
		return err
	}
	if err := netns.SetLoopbackUp(); err != nil {
		return err
	}
	if err := setSysctls(); err != nil {
		return err
	}
	var err error
	if s.Net, err = netns.FromThread(); err != nil {
		return err
	}
	if s.uts, err = os.Open("/proc/thread-self/ns/uts"); err != nil {
		return fmt.Errorf("keep the host name namespace: %w", err)
	}
	return s.split(c)
}

// split makes the two views of the files: the sidecar's, which is that of the
// calling thread, and the programs', which is a copy without what is private.
func (s *Sandbox) split(c Config) (err error) {
	if s.sidecar, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return fmt.Errorf("keep the sidecar's mount namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make the programs' mount namespace: %w", err)
	}
	if err := withhold(c); err != nil {
		return err
	}
	if s.mnt, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return fmt.Errorf("keep the programs' mount namespace: %w", err)
	}
	return nil
}

// setSysctls makes the pod's network behave as a container's does: any program
// may bind ports below 1024 and send pings. Kernels without a setting go on
// without it.
func setSysctls() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("allow low ports: %w", err)
	}
	// The widest range that the user namespace has a mapping for.
	if os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0) != nil {
		os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0) // ping stays privileged if this fails too
	}
	for name, value := range map[string]string{"accept_ra": "0", "autoconf": "0"} {
		os.WriteFile("/proc/sys/net/ipv6/conf/default/"+name, []byte(value), 0) // absent without IPv6
	}
	return nil
}

// Run executes f on a thread inside all namespaces of the pod. Processes that
// f starts are inside too.
func (s *Sandbox) Run(f func() error) error { return s.run(s.mnt, f) }

// RunSidecar is Run with the sidecar's view of the files.
func (s *Sandbox) RunSidecar(f func() error) error { return s.run(s.sidecar, f) }

func (s *Sandbox) run(mnt *os.File, f func() error) error {
	return onThread(func() error {
		// A thread that shares its working directory with others may not
		// change its mount namespace: setns(2).
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("sandbox: separate the thread's file system state: %w", err)
		}
		if err := unix.Setns(int(s.uts.Fd()), unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("sandbox: enter host name namespace: %w", err)
		}
		if err := s.Net.Enter(); err != nil {
			return err
		}
		if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("sandbox: enter mount namespace: %w", err)
		}
		return f()
	})
}

// Close lets go of the namespaces and removes the pod's files. Processes that
// are still inside keep running: see KillAll.
func (s *Sandbox) Close() error {
	for _, f := range []*os.File{s.mnt, s.sidecar, s.uts} {
		if f != nil {
			f.Close()
		}
	}
	if s.Net != nil {
		s.Net.Close()
	}
	return os.RemoveAll(s.dir)
}

// KillAll kills every process in the pod's network namespace, also those that
// left their process group, and returns how many it found. With a /proc that is
// not of our own PID namespace it does nothing: its numbers are others' here.
func (s *Sandbox) KillAll() int {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return 0
	}
	killed := 0
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0
	}
	for _, dir := range procs {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, "ns/net"), &st) != nil || st.Ino != s.Net.Inode() {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err != nil || pid == os.Getpid() {
			continue
		}
		if unix.Kill(pid, unix.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// onThread runs f on a thread that is thrown away afterwards.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}
