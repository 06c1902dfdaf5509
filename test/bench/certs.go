package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

const (
	trustDomain = "cluster.local"
	// Service accounts of the two ends of a pair; also the common names of the peers' certificates.
	clientAccount = "bench-client"
	serverAccount = "bench-server"
	// strangerAccount may not call the server.
	strangerAccount = "bench-stranger"
)

func spiffeID(account string) string {
	return "spiffe://" + trustDomain + "/ns/default/sa/" + account
}

// writeCerts makes what HAProxy, nginx and Envoy use for mTLS: a root and two
// leaves (P-256, as the mesh's own) as NAME.crt, NAME.key and both in NAME.pem, and root.crt.
func writeCerts(dir string) error {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, "root.crt"), &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return err
	}
	for i, account := range []string{clientAccount, serverAccount, strangerAccount} {
		if err := writeLeaf(dir, account, int64(i)+2, root, rootKey); err != nil {
			return err
		}
	}
	return nil
}

func writeLeaf(dir, account string, serial int64, root *x509.Certificate, rootKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id, err := url.Parse(spiffeID(account))
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: account}, DNSNames: []string{account}, URIs: []*url.URL{id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	c, k := &pem.Block{Type: "CERTIFICATE", Bytes: der}, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}
	base := filepath.Join(dir, account)
	for name, blocks := range map[string][]*pem.Block{base + ".crt": {c}, base + ".key": {k}, base + ".pem": {c, k}} {
		if err := writePEM(name, blocks...); err != nil {
			return err
		}
	}
	return nil
}

func writePEM(name string, blocks ...*pem.Block) error {
	var b []byte
	for _, x := range blocks {
		b = append(b, pem.EncodeToMemory(x)...)
	}
	return os.WriteFile(name, b, 0o600)
}
