package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// maxCertificates bounds what is parsed from a response or a file.
const maxCertificates = 64

// trust is the union of the roots that were served. A root that is no longer served
// stays until certificates issued under it can have expired, so that a rotation
// of the root breaks no connection between an early and a late workload.
type trust struct {
	roots map[[32]byte]*served
}

type served struct {
	cert  *x509.Certificate
	order int
	until time.Time // zero: in the last response
}

// update takes the roots of a new response. Those missing in it leave at retire. It tells whether the set changed.
func (t *trust) update(roots []*x509.Certificate, now, retire time.Time) (changed bool) {
	if t.roots == nil {
		t.roots = map[[32]byte]*served{}
	}
	current := map[[32]byte]bool{}
	for _, r := range roots {
		k := sha256.Sum256(r.Raw)
		current[k] = true
		if s := t.roots[k]; s != nil {
			s.until = time.Time{}
			continue
		}
		t.roots[k] = &served{cert: r, order: len(t.roots)}
		changed = true
	}
	for k, s := range t.roots {
		if !current[k] && s.until.IsZero() {
			s.until = retire
		}
	}
	return t.expire(now) || changed
}

// expire drops roots whose time is over.
func (t *trust) expire(now time.Time) (changed bool) {
	for k, s := range t.roots {
		if (!s.until.IsZero() && now.After(s.until)) || now.After(s.cert.NotAfter) {
			delete(t.roots, k)
			changed = true
		}
	}
	return changed
}

// list returns the roots in the order in which they came.
func (t *trust) list() []*x509.Certificate {
	var out []*served
	for _, s := range t.roots {
		out = append(out, s)
	}
	sortServed(out)
	certs := make([]*x509.Certificate, len(out))
	for i, s := range out {
		certs[i] = s.cert
	}
	return certs
}

// ParseCertificates reads all PEM certificates of data; anything else in it is an error.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("pem block %q, want CERTIFICATE", block.Type)
		}
		if len(out) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(bytes.TrimSpace(data)) != 0 {
		return nil, errors.New("trailing bytes that are no PEM block")
	}
	if len(out) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return out, nil
}

// split separates a served chain (leaf first, roots last) into chain and
// roots: a root is a certificate that signed itself.
func split(certs []*x509.Certificate) (chain, roots []*x509.Certificate) {
	for i, c := range certs {
		if i > 0 && selfSigned(c) {
			roots = append(roots, c)
		} else {
			chain = append(chain, c)
		}
	}
	return chain, roots
}

func selfSigned(c *x509.Certificate) bool {
	return c.IsCA && bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func encodeCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a bytes.Buffer cannot fail
	}
	return b.Bytes()
}
