package kube

import (
	"context"
	"fmt"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/kube/kubeclient"
)

// MeshConfig is the mesh's settings in a ConfigMap.
type MeshConfig struct {
	Client    *kubeclient.Client
	Namespace string
	Name      string
	Key       string // in data
	Log       *slog.Logger
}

// Load returns the text; "" if there is no ConfigMap, or it has not the key.
func (m *MeshConfig) Load(ctx context.Context) (string, error) {
	u, err := m.Client.Dynamic.Resource(configMaps).Namespace(m.Namespace).Get(ctx, m.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("mesh config: configmap %s/%s: %w", m.Namespace, m.Name, err)
	}
	text, _, _ := unstructured.NestedString(u.Object, "data", m.Key)
	return text, nil
}

// Follow gives each other text to use until ctx ends. An error of use is logged
// with the ConfigMap's name, and what was before counts; so it does if the ConfigMap goes.
func (m *MeshConfig) Follow(ctx context.Context, first string, use func(text string) error) {
	have, store := first, newObjects(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow(ctx, m.Client.Dynamic.Resource(configMaps).Namespace(m.Namespace), "metadata.name="+m.Name, store, m.Log, "configmap "+m.Name)
	}()
	defer func() { <-done }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-store.wake:
		}
		all, ok := store.list()
		if !ok || len(all) == 0 {
			continue
		}
		text, _, _ := unstructured.NestedString(all[0].Object, "data", m.Key)
		if text == have {
			continue
		}
		have = text
		if err := use(text); err != nil {
			m.Log.Error("mesh config: a change is refused, what was before counts", "configmap", m.Namespace+"/"+m.Name, "error", err)
		}
	}
}
