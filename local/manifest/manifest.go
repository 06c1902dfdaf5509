// Package manifest publishes local pods to the control plane: a Kubernetes Pod
// manifest for each, in a folder that the control plane's file source watches.
//
// A file is replaced as a whole (written beside and renamed), so that a reader
// never sees half of one.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
)

// Pod is what is published of a pod.
type Pod struct {
	Namespace      string
	Name           string
	UID            string
	Deployment     string
	ServiceAccount string
	Labels         map[string]string
	Annotations    map[string]string
	IP             string
	NodeIP         string
	Phase          admin.PodPhase
	Ready          bool
	Created        time.Time
	ReadySince     time.Time // when Ready last changed
	Deleted        time.Time // zero unless the pod is ending
	Grace          time.Duration
	Containers     []Container
}

// Container is one container of a published pod.
type Container struct {
	Name    string
	Ready   bool
	Running bool
	Ports   []Port
}

// Port is a declared port.
type Port struct {
	Name string
	Port uint16
	UDP  bool
}

// Encode is the manifest in YAML.
func Encode(p Pod) ([]byte, error) {
	b, err := yaml.Marshal(object(p))
	if err != nil {
		return nil, fmt.Errorf("manifest %s/%s: %w", p.Namespace, p.Name, err)
	}
	return b, nil
}

func object(p Pod) *corev1.Pod {
	controller := true
	out := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID), Labels: p.Labels, Annotations: p.Annotations,
			CreationTimestamp: metav1.NewTime(p.Created),
			OwnerReferences:   []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: p.Deployment, Controller: &controller}},
		},
		Spec: corev1.PodSpec{ServiceAccountName: p.ServiceAccount, NodeName: NodeName},
		Status: corev1.PodStatus{
			Phase: phase(p.Phase), HostIP: p.NodeIP, PodIP: p.IP, PodIPs: []corev1.PodIP{{IP: p.IP}},
			Conditions: []corev1.PodCondition{
				condition(corev1.PodReady, p.Ready, p.ReadySince),
				condition(corev1.ContainersReady, p.Ready, p.ReadySince),
			},
		},
	}
	if !p.Deleted.IsZero() {
		t, grace := metav1.NewTime(p.Deleted), int64(p.Grace/time.Second)
		out.DeletionTimestamp, out.DeletionGracePeriodSeconds = &t, &grace
	}
	for _, c := range p.Containers {
		out.Spec.Containers = append(out.Spec.Containers, corev1.Container{Name: c.Name, Ports: ports(c.Ports)})
		out.Status.ContainerStatuses = append(out.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Ready: c.Ready, Started: &c.Running})
	}
	return out
}

// NodeName is the name of the one node of a local mesh.
const NodeName = "local"

func ports(in []Port) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, p := range in {
		proto := corev1.ProtocolTCP
		if p.UDP {
			proto = corev1.ProtocolUDP
		}
		out = append(out, corev1.ContainerPort{Name: p.Name, ContainerPort: int32(p.Port), Protocol: proto})
	}
	return out
}

func condition(kind corev1.PodConditionType, ok bool, since time.Time) corev1.PodCondition {
	status := corev1.ConditionFalse
	if ok {
		status = corev1.ConditionTrue
	}
	return corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.NewTime(since)}
}

// phase is Kubernetes' phase: Terminating is none, it is Running with a
// deletion timestamp.
func phase(p admin.PodPhase) corev1.PodPhase {
	if p == admin.PodStopping {
		return corev1.PodRunning
	}
	return corev1.PodPhase(p)
}

// Folder is where manifests are published.
type Folder struct{ Dir string }

func (f Folder) path(namespace, name string) string {
	return filepath.Join(f.Dir, namespace+"_"+name+".yaml")
}

// Clear makes the folder and removes what an earlier run left in it.
func (f Folder) Clear() error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("manifest: make folder: %w", err)
	}
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return fmt.Errorf("manifest: list folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".yaml") || strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.Remove(filepath.Join(f.Dir, e.Name())); err != nil {
				return fmt.Errorf("manifest: remove a leftover: %w", err)
			}
		}
	}
	return nil
}

const tempPrefix = ".new-"

// Publish writes a pod's manifest unless the file holds just that already.
func (f Folder) Publish(p Pod) error {
	b, err := Encode(p)
	if err != nil {
		return err
	}
	path := f.path(p.Namespace, p.Name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	temp := filepath.Join(f.Dir, tempPrefix+filepath.Base(path)+".tmp") // no .yaml: watchers pass it by
	if err := os.WriteFile(temp, b, 0o600); err != nil {
		return fmt.Errorf("manifest: write: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("manifest: publish: %w", err)
	}
	return nil
}

// Withdraw removes a pod's manifest; a missing one is no error.
func (f Folder) Withdraw(namespace, name string) error {
	if err := os.Remove(f.path(namespace, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("manifest: withdraw: %w", err)
	}
	return nil
}

// Names lists the published files, sorted.
func (f Folder) Names() []string {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".yaml") {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out
}
