package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NodeSettings are what a node's pid 1 is told by [Bed.Up].
type NodeSettings struct {
	Node      Node
	Nodes     int
	ProxyMode string // nftables or iptables
}

// RunNode is pid 1 of a node, inside its namespaces. It returns only with an
// error, or when the context ends.
func (b *Bed) RunNode(ctx context.Context, s NodeSettings) error {
	if os.Getpid() != 1 {
		return errors.New("node: not pid 1 of a namespace: it is started by `up`")
	}
	signal.Ignore(unix.SIGHUP)
	// A connection to the API server that was cut is found out after 10 s: by default after 45, and a node that is back is
	// as long without its pods.
	if err := errors.Join(os.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "5"), os.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "5")); err != nil {
		return err
	}
	n := node{Bed: b, NodeSettings: s, dir: filepath.Join(b.Run(), s.Node.String()), pki: filepath.Join(b.Run(), "pki")}
	n.children.logs = filepath.Join(n.dir, "log")
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"mounts", n.mounts}, {"network", n.network}, {"cgroups", func(context.Context) error { return b.enterCgroups(s.Node) }},
		{"files", n.files}, {"control plane", n.controlPlane}, {"containerd", n.containerd},
		{"controllers", n.controllers}, {"kubelet", n.kubelet}, {"kube-proxy", n.kubeProxy},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %s: %w", s.Node, step.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s %s: %s done\n", time.Now().Format("15:04:05.000"), s.Node, step.name)
	}
	if s.Node == 1 {
		return n.balanceForever(ctx)
	}
	<-ctx.Done()
	return nil
}

type node struct {
	*Bed
	NodeSettings
	dir, pki string
	children children
}

// mounts makes the mount namespace the node's own.
func (n *node) mounts(context.Context) error {
	if err := unix.Sethostname([]byte(n.Node.String())); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil { // volumes propagate to containers
		return err
	}
	// Private scratch over what daemons write outside the directories that they are given.
	for _, dir := range []string{"/run", "/var/log", "/opt", "/var/lib/kubelet", "/var/lib/cni", "/etc/cni"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/netns", "/run/containerd", "/run/sysctl", "/etc/cni/net.d", "/opt/cni/bin"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return fakeSysctls()
}

// fakeSysctls shows the kubelet the values that it would set: they are the
// machine's, not the namespace's, so files with the content are put over them.
func fakeSysctls() error {
	for name, value := range map[string]string{"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"} {
		file := filepath.Join("/run/sysctl", filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// network waits for the interface that Up puts into the namespace, and sets addresses and routes.
func (n *node) network(ctx context.Context) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	var eth netlink.Link
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if eth, err = netlink.LinkByName("eth0"); err == nil {
			break
		}
		if time.Since(start) > 20*time.Second {
			return err
		}
	}
	addr, err := netlink.ParseAddr(n.Node.IP() + "/24")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.AddrAdd(eth, addr), netlink.LinkSetUp(eth)); err != nil {
		return err
	}
	if err := route("0.0.0.0/0", HostIP); err != nil {
		return err
	}
	for other := Node(1); int(other) <= n.NodeSettings.Nodes; other++ {
		if other == n.Node {
			continue
		}
		if err := route(other.Pods(), other.IP()); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// files writes the daemons' configuration.
func (n *node) files(context.Context) error {
	for file, text := range map[string]string{
		"/run/resolv.conf":                  "nameserver 127.0.0.1\n",
		"/run/containerd.toml":              containerdConfig(n.dir),
		"/etc/cni/net.d/10-bridge.conflist": networkConfig(n.Node),
		"/run/kubelet.yaml":                 kubeletConfig(n.Bed, n.Node, n.pki, n.dir),
		"/run/kube-proxy.yaml":              proxyConfig(n.Node, n.pki, n.ProxyMode),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	// No name of the world outside is looked for: an image that is not there fails at once.
	if err := unix.Mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("/etc/resolv.conf: %w", err)
	}
	// Where plugins add themselves, as on other clusters: a folder of the node's own.
	plugins, err := filepath.Glob("/usr/lib/cni/*")
	if err != nil || len(plugins) == 0 {
		return errors.New("no CNI plugins in /usr/lib/cni: is containernetworking-plugins installed?")
	}
	for _, p := range plugins {
		if err := os.Symlink(p, filepath.Join("/opt/cni/bin", filepath.Base(p))); err != nil {
			return err
		}
	}
	return nil
}

// controlPlane starts etcd and the API server, on the first node, and waits for the latter on all.
func (n *node) controlPlane(context.Context) error {
	if n.Node != 1 {
		return nil
	}
	const etcd = "http://127.0.0.1:2379"
	if err := n.keep("etcd", append([]string{n.Bin("etcd")}, etcdArgs(n.dir, etcd, "http://127.0.0.1:2380")...)...); err != nil {
		return err
	}
	s := apiServer{etcd: etcd, bind: "0.0.0.0", advertise: n.Node.IP(), pki: n.pki, dir: n.dir, port: apiPort}
	return n.keep("kube-apiserver", append([]string{n.Bin("kube-apiserver")}, s.args()...)...)
}

// keep runs a program of the control plane as long as the node lives, unless it is held.
func (n *node) keep(name string, argv ...string) error {
	return n.children.keep(name, func() bool { return n.held(n.Node, name) }, argv...)
}

// containerd starts it and imports the images.
func (n *node) containerd(context.Context) error {
	path, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	if _, err := n.children.start("containerd", path, "-c", "/run/containerd.toml"); err != nil {
		return err
	}
	ctr, err := exec.LookPath("ctr")
	if err != nil {
		return err
	}
	for start := time.Now(); n.children.run("ctr", ctr, "-a", containerdSocket, "version") != nil; time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			return errors.New("does not answer after 30 s: see log/containerd.log")
		}
	}
	archives, err := filepath.Glob(filepath.Join(n.Images(), "*.tar"))
	if err != nil {
		return err
	}
	for _, a := range archives {
		if err := n.children.run("import", ctr, "-a", containerdSocket, "-n", "k8s.io", "images", "import", a); err != nil {
			return fmt.Errorf("import %s: %w", a, err)
		}
	}
	return nil
}

func (n *node) controllers(ctx context.Context) error {
	api, err := NewClient(apiURL(), n.pki)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not ready after 2 minutes: see log/kube-apiserver.log"))
	defer cancel()
	if err := api.Ready(wait); err != nil {
		return err
	}
	if n.Node != 1 {
		return nil
	}
	as := func(name string) []string {
		file := filepath.Join(n.pki, name+".kubeconfig")
		return []string{"--kubeconfig=" + file, "--authentication-kubeconfig=" + file, "--authorization-kubeconfig=" + file,
			// As on clusters with several: who cannot reach the API server ends, and begins anew. One that went on would take all nodes
			// for lost, of which it has not heard, in the moment in which the API server is back.
			"--leader-elect-lease-duration=8s", "--leader-elect-renew-deadline=6s", "--leader-elect-retry-period=1s"}
	}
	manager := append([]string{n.Bin("kube-controller-manager"),
		"--service-account-private-key-file=" + filepath.Join(n.pki, "sa.key"), "--root-ca-file=" + filepath.Join(n.pki, "ca.crt"),
		"--cluster-signing-cert-file=" + filepath.Join(n.pki, "ca.crt"), "--cluster-signing-key-file=" + filepath.Join(n.pki, "ca.key"),
		"--use-service-account-credentials", "--node-monitor-period=1s", "--node-monitor-grace-period=20s"}, as("manager")...)
	if err := n.keep("kube-controller-manager", manager...); err != nil {
		return err
	}
	return n.keep("kube-scheduler", append([]string{n.Bin("kube-scheduler")}, as("scheduler")...)...)
}

func (n *node) kubelet(context.Context) error {
	_, err := n.children.start("kubelet", n.Bin("kubelet"), "--config=/run/kubelet.yaml",
		"--kubeconfig="+filepath.Join(n.pki, "kubelet-"+n.Node.String()+".kubeconfig"),
		"--root-dir="+filepath.Join(n.dir, "kubelet"), "--cert-dir="+filepath.Join(n.dir, "kubelet-pki"),
		"--hostname-override="+n.Node.String(), "--node-ip="+n.Node.IP(),
		fmt.Sprintf("--node-labels=topology.kubernetes.io/zone=z%d,topology.kubernetes.io/region=r1", int(n.Node)), "--v=1")
	return err
}

func (n *node) kubeProxy(context.Context) error {
	_, err := n.children.start("kube-proxy", n.Bin("kube-proxy"), "--config=/run/kube-proxy.yaml")
	return err
}
