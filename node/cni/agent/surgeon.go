package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/node/capture"
	"weft.mesh/weft/node/cni"
	"weft.mesh/weft/node/netns"
)

// Doctor is the [Surgeon] of a node.
type Doctor struct {
	API *API
	// Proc is the node's /proc as this process sees it.
	Proc string
	// LabelKey and LabelValue mark a broken pod; Istio's defaults are cni.istio.io/uninitialized and true.
	LabelKey, LabelValue string
}

// Program redirects a running pod's traffic.
func (d *Doctor) Program(_ context.Context, p *corev1.Pod, a cni.Answer) error {
	ns, err := Find(d.Proc, p)
	if err != nil {
		return err
	}
	defer ns.Close()
	return cni.Program(ns, a)
}

// Delete deletes exactly this pod.
func (d *Doctor) Delete(ctx context.Context, p *corev1.Pod) error { return d.API.delete(ctx, p) }

// Label labels the pod.
func (d *Doctor) Label(ctx context.Context, p *corev1.Pod) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID, "labels": map[string]string{d.LabelKey: d.LabelValue}}})
	if err != nil {
		return err
	}
	return d.API.patch(ctx, p, patch)
}

// Find opens the network namespace of a pod of this node: that of a process of the pod, by its cgroup, in which the pod's address is.
func Find(proc string, p *corev1.Pod) (*netns.Handle, error) {
	ip, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil {
		return nil, fmt.Errorf("the pod's address %q: %w", p.Status.PodIP, err)
	}
	host, err := netns.Open(filepath.Join(proc, "1", "ns", "net"))
	if err != nil {
		return nil, fmt.Errorf("the node's own namespace (needs SYS_PTRACE and the node's /proc): %w", err)
	}
	defer host.Close()
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	seen := []uint64{host.Inode()}
	var last error
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" || !belongs(filepath.Join(proc, e.Name(), "cgroup"), string(p.UID)) {
			continue
		}
		ns, err := netns.Open(filepath.Join(proc, e.Name(), "ns", "net"))
		if err != nil {
			last = err // a process that has just ended, or no SYS_PTRACE
			continue
		}
		if !slices.Contains(seen, ns.Inode()) && has(ns, ip) {
			return ns, nil
		}
		seen = append(seen, ns.Inode())
		ns.Close()
	}
	return nil, errors.Join(fmt.Errorf("no process of the pod is in a namespace with its address %s", ip), last)
}

// belongs tells whether a process is in a pod's cgroup: its path has the pod's UID, with _ for - where systemd makes it.
func belongs(file, uid string) bool {
	b, err := os.ReadFile(file)
	if err != nil || uid == "" {
		return false
	}
	return strings.Contains(string(b), "pod"+uid) || strings.Contains(string(b), "pod"+strings.ReplaceAll(uid, "-", "_"))
}

func has(ns *netns.Handle, ip netip.Addr) bool {
	found := false
	err := ns.Do(func() error {
		addrs, err := capture.Addresses()
		found = slices.Contains(addrs, ip)
		return err
	})
	return err == nil && found
}
