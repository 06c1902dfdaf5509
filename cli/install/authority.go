package install

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft.mesh/weft/control/kube"
)

// expiresSoon is how long before its end the certificate of the authority is worth a word.
const expiresSoon = 30 * 24 * time.Hour

// checkAuthority reads the key of the certificate authority as the control plane will: with one that it
// cannot use it would not start.
func (in *Installer) checkAuthority(ctx context.Context, p *Plan) ([]*Finding, error) {
	ns := p.Config.Namespace
	for _, name := range []string{kube.SecretPlugged, kube.SecretOwn} {
		o, err := in.Cluster.Dynamic.Resource(res("", "v1", "secrets")).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			continue // the second is what checkRights says
		}
		if err != nil {
			return nil, in.Cluster.Explain("get", "secret/"+name, err)
		}
		m, err := kube.CAMaterial(o, "cluster.local") // the trust domain is no part of the key
		if err != nil {
			return []*Finding{{SeverityError, "certificate authority: " + err.Error(), fmt.Sprintf("renew the Secret, or delete it: without %s and %s the control plane makes another root, which workloads that run do not trust", kube.SecretPlugged, kube.SecretOwn)}}, nil
		}
		if end := notAfter(m.Cert); !end.IsZero() && time.Until(end) < expiresSoon {
			return []*Finding{{SeverityWarning, fmt.Sprintf("certificate authority: the certificate of secret %s/%s expires at %s", ns, name, end.Format(time.RFC3339)), "renew it: what is signed with it does not last longer"}}, nil
		}
		return nil, nil // the first counts
	}
	return nil, nil
}

// notAfter is the end of the first certificate of a PEM text.
func notAfter(text []byte) time.Time {
	b, _ := pem.Decode(text)
	if b == nil {
		return time.Time{}
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return time.Time{}
	}
	return c.NotAfter
}
