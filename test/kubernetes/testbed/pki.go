package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the cluster's certificates. They live as long as the cluster does.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// newAuthority makes a CA in dir: ca.crt and ca.key.
func newAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "weft-testbed"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
	}
	a.cert = t
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := a.sign(t, &a.key.PublicKey)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a, a.write("ca", der, a.key)
}

func (a *authority) sign(t *x509.Certificate, pub *ecdsa.PublicKey) ([]byte, error) {
	t.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	t.NotBefore, t.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(10*365*24*time.Hour)
	return x509.CreateCertificate(rand.Reader, t, a.cert, pub, a.key)
}

func (a *authority) write(name string, der []byte, key *ecdsa.PrivateKey) error {
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(a.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue writes name.crt and name.key. With hosts it is a server's
// certificate, without a client's; groups are Kubernetes' groups of the user.
func (a *authority) issue(name, user string, groups []string, hosts ...string) error {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: user, Organization: groups}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, h := range hosts {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := a.sign(t, &key.PublicKey)
	if err != nil {
		return err
	}
	return a.write(name, der, key)
}

// serviceAccountKey writes sa.key and sa.pub, with which tokens are signed and checked.
func (a *authority) serviceAccountKey() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.path("sa.key"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(a.path("sa.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), 0o644)
}

// kubeconfig writes name.kubeconfig with the certificate of that name.
func (a *authority) kubeconfig(name, server string) error {
	cert, err := os.ReadFile(a.path(name + ".crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(a.path(name + ".key"))
	if err != nil {
		return err
	}
	b64 := base64.StdEncoding.EncodeToString
	return os.WriteFile(a.path(name+".kubeconfig"), fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: testbed, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: %s, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: testbed, context: {cluster: testbed, user: %s}}]
current-context: testbed
`, server, b64(a.pem), name, b64(cert), b64(key), name), 0o600)
}

// serverHosts are the names of the API server.
func serverHosts(ip string) []string {
	return []string{"127.0.0.1", ip, apiServiceIP, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
}

// controlPKI writes what the API server needs, and the administrator's kubeconfig.
func controlPKI(dir, ip, server string) (*authority, error) {
	a, err := newAuthority(dir)
	if err != nil {
		return nil, err
	}
	if err := a.serviceAccountKey(); err != nil {
		return nil, err
	}
	if err := a.issue("apiserver", "kube-apiserver", nil, serverHosts(ip)...); err != nil {
		return nil, err
	}
	for name, user := range map[string]string{
		"admin": "admin", "apiserver-kubelet-client": "apiserver-kubelet-client", "front-proxy-client": "front-proxy-client",
		"manager": "system:kube-controller-manager", "scheduler": "system:kube-scheduler", "kube-proxy": "system:kube-proxy",
	} {
		var groups []string
		if name == "admin" || name == "apiserver-kubelet-client" {
			groups = []string{"system:masters"}
		}
		if err := a.issue(name, user, groups); err != nil {
			return nil, err
		}
		if err := a.kubeconfig(name, server); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// nodePKI writes a kubelet's two certificates.
func (a *authority) nodePKI(n Node) error {
	name := n.String()
	if err := a.issue("kubelet-"+name, "system:node:"+name, []string{"system:nodes"}); err != nil {
		return err
	}
	if err := a.issue("kubelet-server-"+name, "system:node:"+name, []string{"system:nodes"}, "127.0.0.1", n.IP(), name); err != nil {
		return err
	}
	return a.kubeconfig("kubelet-"+name, apiURL())
}
