package install

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Where a certificate authority of Istio's kind keeps its root, in the order in which it counts.
const (
	secretPlugged  = "cacerts"
	secretIstio    = "istio-ca-secret"
	secretOwn      = "weft-ca-secret"
	rootConfigMap  = "istio-ca-root-cert"
	docsCommonRoot = "copy Istio's certificate authority into %s before: see step 1 of docs/kubernetes/migrate-from-istio.md"
)

// checkRoots finds an Istio with another root of trust. Both control planes keep the ConfigMap
// istio-ca-root-cert of every namespace, from which sidecars of both learn whom to trust:
// with two roots each would go on taking the other's sidecars off their control plane.
func (in *Installer) checkRoots(ctx context.Context, p *Plan) ([]*Finding, error) {
	istio, err := in.istioNamespace(ctx)
	if err != nil || istio == "" || istio == p.Config.Namespace {
		return nil, err
	}
	theirs, err := in.root(ctx, istio, secretPlugged, secretIstio)
	if err == nil && theirs == nil {
		theirs, err = in.rootOfConfigMap(ctx, istio)
	}
	if err != nil {
		return nil, err
	}
	ours, err := in.root(ctx, p.Config.Namespace, secretPlugged, secretOwn)
	if err != nil {
		return nil, err
	}
	fix := fmt.Sprintf(docsCommonRoot, p.Config.Namespace)
	switch {
	case theirs == nil:
		return []*Finding{{SeverityWarning, "the root certificate of the Istio in " + istio + " is not to be found in a Secret or ConfigMap there", "make sure that Weft has the same one: " + fix}}, nil
	case ours == nil:
		return []*Finding{{SeverityError, fmt.Sprintf("the Istio in %s has a root of trust, and %s has none yet: Weft would make another, and both write the ConfigMap %s", istio, p.Config.Namespace, rootConfigMap), fix}}, nil
	case !shareCertificate(theirs, ours):
		return []*Finding{{SeverityError, fmt.Sprintf("the Istio in %s and Weft in %s have different roots of trust, and both write the ConfigMap %s", istio, p.Config.Namespace, rootConfigMap), fix}}, nil
	}
	return nil, nil
}

// checkTrustBundle finds an API server that does not serve what pods would mount.
func (in *Installer) checkTrustBundle(ctx context.Context, p *Plan) ([]*Finding, error) {
	if !p.on("global", "clusterTrustBundle") {
		return nil, nil
	}
	for _, version := range []string{"v1", "v1beta1"} {
		_, err := in.Cluster.Dynamic.Resource(res("certificates.k8s.io", version, "clustertrustbundles")).List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil || apierrors.IsForbidden(err) {
			return nil, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, in.Cluster.Explain("list", "clustertrustbundles.certificates.k8s.io", err)
		}
	}
	return []*Finding{{SeverityError, "global.clusterTrustBundle: the API server serves no clustertrustbundles of certificates.k8s.io/v1 or v1beta1: pods that mount one would not start",
		"turn the features ClusterTrustBundle and ClusterTrustBundleProjection of Kubernetes on, or --set global.clusterTrustBundle=false"}}, nil
}

// istioNamespace is where the injection webhooks of an Istio lead to; "" if there are none.
func (in *Installer) istioNamespace(ctx context.Context) (string, error) {
	list, err := in.Cluster.Dynamic.Resource(mutating).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", in.Cluster.Explain("list", groupResource(kind{gvr: mutating}), err)
	}
	for i := range list.Items {
		hooks, _, _ := unstructured.NestedSlice(list.Items[i].Object, "webhooks")
		for _, h := range hooks {
			m, _ := h.(map[string]any)
			if name, _ := m["name"].(string); !strings.HasSuffix(name, injectorOfIstio) {
				continue
			}
			if ns, _, _ := unstructured.NestedString(m, "clientConfig", "service", "namespace"); ns != "" {
				return ns, nil
			}
		}
	}
	return "", nil
}

// root is the root certificate of the first of these Secrets that is there; nil if none is.
// A user without rights on Secrets cannot install either, which checkRights says.
func (in *Installer) root(ctx context.Context, ns string, names ...string) ([]byte, error) {
	for _, name := range names {
		o, err := in.Cluster.Dynamic.Resource(res("", "v1", "secrets")).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return nil, in.Cluster.Explain("get", "secret/"+name, err)
		}
		data, _, _ := unstructured.NestedStringMap(o.Object, "data")
		for _, key := range []string{"root-cert.pem", "ca.crt", "ca-cert.pem", "tls.crt"} {
			if b, err := base64.StdEncoding.DecodeString(data[key]); err == nil && len(b) > 0 {
				return b, nil
			}
		}
	}
	return nil, nil
}

// rootOfConfigMap is the root that Istio published; one that Weft wrote tells nothing of Istio.
func (in *Installer) rootOfConfigMap(ctx context.Context, ns string) ([]byte, error) {
	o, err := in.Cluster.Dynamic.Resource(configMaps).Namespace(ns).Get(ctx, rootConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, in.Cluster.Explain("get", "configmap/"+rootConfigMap, err)
	}
	text, _, _ := unstructured.NestedString(o.Object, "data", "root-cert.pem")
	if o.GetLabels()[labelManagedBy] == manager || text == "" {
		return nil, nil
	}
	return []byte(text), nil
}

// shareCertificate tells whether two bundles have a certificate in common.
func shareCertificate(a, b []byte) bool {
	for x, rest := pem.Decode(a); x != nil; x, rest = pem.Decode(rest) {
		for y, other := pem.Decode(b); y != nil; y, other = pem.Decode(other) {
			if bytes.Equal(x.Bytes, y.Bytes) {
				return true
			}
		}
	}
	return false
}
