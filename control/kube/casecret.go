package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/kube/kubeclient"
)

// Names of Secrets in the root namespace.
const (
	SecretPlugged = "cacerts"        // Istio's: a CA that somebody plugged in; it counts more
	SecretOwn     = "weft-ca-secret" // made where there is none
)

// CASecret is the key of the certificate authority in a Secret. All replicas
// use one: whichever comes first makes it, the API server lets one win.
type CASecret struct {
	Client      *kubeclient.Client
	Namespace   string
	TrustDomain string
	Log         *slog.Logger
	now         func() time.Time
}

// Load returns the material to begin with, and makes it if there is none. A
// Secret that is there and cannot be used is an error that says why: another
// root made in its place would cut off every workload that has a certificate.
func (s *CASecret) Load(ctx context.Context) (ca.Material, error) {
	for _, name := range []string{SecretPlugged, SecretOwn} {
		u, err := s.get(ctx, name)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return ca.Material{}, fmt.Errorf("ca: secret %s/%s: %w", s.Namespace, name, err)
		}
		return s.material(u)
	}
	return s.create(ctx)
}

func (s *CASecret) get(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	return s.Client.Dynamic.Resource(secrets).Namespace(s.Namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s *CASecret) create(ctx context.Context) (ca.Material, error) {
	now := time.Now()
	if s.now != nil {
		now = s.now()
	}
	m, err := ca.Generate(s.TrustDomain, now)
	if err != nil {
		return m, err
	}
	encode := base64.StdEncoding.EncodeToString
	_, err = s.Client.Dynamic.Resource(secrets).Namespace(s.Namespace).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root",
		"metadata": map[string]any{"name": SecretOwn, "namespace": s.Namespace, "labels": map[string]any{"app.kubernetes.io/name": "weft"}},
		"data":     map[string]any{"ca-key.pem": encode(m.Key), "ca-cert.pem": encode(m.Cert), "root-cert.pem": encode(m.Cert)},
	}}, metav1.CreateOptions{FieldManager: FieldManager})
	switch {
	case apierrors.IsAlreadyExists(err):
		u, err := s.get(ctx, SecretOwn)
		if err != nil {
			return m, fmt.Errorf("ca: secret %s/%s: %w", s.Namespace, SecretOwn, err)
		}
		return s.material(u)
	case err != nil:
		return m, fmt.Errorf("ca: secret %s/%s: %w", s.Namespace, SecretOwn, err)
	}
	m.Roots = m.Cert // as it is read back
	s.Log.Info("ca: made a root certificate", "secret", s.Namespace+"/"+SecretOwn)
	return m, nil
}

func (s *CASecret) material(u *unstructured.Unstructured) (ca.Material, error) {
	return CAMaterial(u, s.TrustDomain)
}

// CAMaterial reads a Secret: Istio's names, or those of a kubernetes.io/tls Secret
// as cert-manager writes it. It is checked whether it can sign.
func CAMaterial(u *unstructured.Unstructured, trustDomain string) (ca.Material, error) {
	data, _, _ := unstructured.NestedStringMap(u.Object, "data")
	var errs []error
	read := func(names ...string) []byte {
		for _, n := range names {
			if text, ok := data[n]; ok {
				b, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", n, err))
				}
				return b
			}
		}
		return nil
	}
	m := ca.Material{Key: read("ca-key.pem", "tls.key"), Cert: read("ca-cert.pem", "tls.crt"), Chain: read("cert-chain.pem"), Roots: read("root-cert.pem", "ca.crt")}
	err := errors.Join(errs...)
	if err == nil {
		_, err = ca.New(trustDomain, m)
	}
	if err != nil {
		return m, fmt.Errorf("secret %s/%s cannot be used: %w; want ca-key.pem, ca-cert.pem, cert-chain.pem and root-cert.pem, or tls.key, tls.crt and ca.crt", u.GetNamespace(), u.GetName(), err)
	}
	return m, nil
}

// Follow gives later versions of the Secrets to use until ctx ends. One that
// cannot be used is logged, and what was before signs on; so it does if both Secrets go.
func (s *CASecret) Follow(ctx context.Context, first ca.Material, use func(ca.Material) error) {
	have := first
	plugged, own := newObjects(nil), newObjects(nil)
	c := s.Client.Dynamic.Resource(secrets).Namespace(s.Namespace)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { follow(ctx, c, "metadata.name="+SecretPlugged, plugged, s.Log, "secret "+SecretPlugged) })
	wg.Go(func() { follow(ctx, c, "metadata.name="+SecretOwn, own, s.Log, "secret "+SecretOwn) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-plugged.wake:
		case <-own.wake:
		}
		a, okA := plugged.list()
		b, okB := own.list()
		if !okA || !okB || len(a)+len(b) == 0 {
			continue
		}
		m, err := s.material(append(a, b...)[0])
		if err == nil && reflect.DeepEqual(m, have) {
			continue
		}
		if err == nil {
			err = use(m)
		}
		if err != nil {
			s.Log.Error("ca: a changed key is refused, the one before signs on", "error", err)
			continue
		}
		have = m
		s.Log.Info("ca: signs with another key", "secret", s.Namespace+"/"+append(a, b...)[0].GetName())
	}
}
