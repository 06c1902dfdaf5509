package server

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"weft.mesh/weft/proxy/identity"
)

// maxRoots bounds the file of root certificates.
const maxRoots = 1 << 20

// controlRoots gives the roots that verify the control plane.
func (s *Server) controlRoots() (func() *x509.CertPool, error) {
	if s.set.CARootsFile == "" {
		roots, err := identity.ParseCertificates(s.set.CARoots)
		if err != nil {
			return nil, err
		}
		pool := identity.NewBundle(s.set.TrustDomain, roots).Pool
		return func() *x509.CertPool { return pool }, nil
	}
	f := &rootsFile{path: s.set.CARootsFile, log: s.set.Log}
	if err := f.read(); err != nil {
		return nil, fmt.Errorf("%w (is the ConfigMap istio-ca-root-cert in this namespace?)", err)
	}
	return f.pool, nil
}

// rootsFile is a file of roots that changes when the authority's root does: kubelet replaces it. A
// file that cannot be used leaves those that were read before in force.
type rootsFile struct {
	path string
	log  *slog.Logger

	mu sync.Mutex
	// mu protects the following.
	content []byte
	roots   *x509.CertPool
}

// pool reads the file once more: it is asked for each connection to the control plane, which is seldom.
func (f *rootsFile) pool() *x509.CertPool {
	if err := f.read(); err != nil {
		f.log.Warn("root certificates of the control plane are not usable, the ones before stay", "cause", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.roots
}

func (f *rootsFile) read() error {
	st, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if st.Size() > maxRoots {
		return fmt.Errorf("%s: %d bytes: at most %d", f.path, st.Size(), maxRoots)
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.roots != nil && bytes.Equal(b, f.content) {
		return nil
	}
	certs, err := identity.ParseCertificates(b)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.content, f.roots = b, identity.NewBundle("", certs).Pool
	return nil
}
