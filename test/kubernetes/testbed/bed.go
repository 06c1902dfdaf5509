// Package testbed is a real Kubernetes cluster on one Linux machine, without
// Docker, without a virtual machine and without a registry.
//
// It builds Kubernetes, etcd and CoreDNS once from their Go modules, and
// starts nodes: each is a set of namespaces (network, mount, pid, uts, ipc)
// whose pid 1 is this program, with containerd, kubelet and kube-proxy in it;
// the first has the control plane too. A bridge joins them. Killing a node's
// pid 1 takes everything in it away; what the kernel keeps (links, cgroups) is
// removed by [Bed.Down], also after a crash.
//
// It needs root, and refuses without. Addresses are fixed (see [Node]), so one
// cluster runs at a time in a network namespace; a second checkout can have one beside it
// (`unshare --net`, with lo up). It changes no setting of the machine itself
// but a bridge, its routes and cgroups of its own, and opens no
// connection to other machines but those of go build and apt-get.
package testbed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Bed is where everything is.
type Bed struct {
	Module string    // top directory of the checkout
	Dir    string    // what is built and what runs; default Module/.cache/kubernetes
	Log    io.Writer // progress, one line for each step
}

// Find looks for the checkout from the working directory upwards.
func Find(log io.Writer) (*Bed, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test/kubernetes/build/kube/go.mod")); err == nil {
			return &Bed{Module: dir, Dir: filepath.Join(dir, ".cache", "kubernetes"), Log: log}, nil
		}
		if dir == filepath.Dir(dir) {
			return nil, errors.New("test bed: not in a checkout of weft (no test/kubernetes above the working directory)")
		}
	}
}

// Bin is a program's path.
func (b *Bed) Bin(name string) string { return filepath.Join(b.Dir, "bin", name) }

// Images is the directory whose archives every node imports when it starts.
func (b *Bed) Images() string { return filepath.Join(b.Dir, "images") }

// Run is the directory of the running cluster. It is gone when it is down.
func (b *Bed) Run() string { return filepath.Join(b.Dir, "run") }

// Kubeconfig has the administrator's credentials.
func (b *Bed) Kubeconfig() string { return filepath.Join(b.Run(), "pki", "admin.kubeconfig") }

// Environment is what kubectl and clients need, as key=value.
func (b *Bed) Environment() []string {
	return append(os.Environ(),
		"KUBECONFIG="+b.Kubeconfig(),
		"KUBECACHEDIR="+filepath.Join(b.Run(), "kubecache"),
		"WEFT_KUBERNETES="+b.Dir,
		"PATH="+filepath.Join(b.Dir, "bin")+":"+os.Getenv("PATH"))
}

// Running says whether a cluster was started from this directory.
func (b *Bed) Running() bool {
	_, err := os.Stat(b.Kubeconfig())
	return err == nil && len(b.nodeProcesses()) > 0
}

func (b *Bed) say(format string, args ...any) { fmt.Fprintf(b.Log, format+"\n", args...) }

// root is the check that everything but building needs.
func root(what string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s: needs root (namespaces, cgroups, containerd); run it as root", what)
	}
	return nil
}
