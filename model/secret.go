package model

import "fmt"

// Kinds that carry certificates.
const (
	KindSecret    Kind = "Secret"
	KindConfigMap Kind = "ConfigMap"
)

// Secret is a certificate chain with its key, or roots, all PEM. It prints
// without its content, so that no log, diff or debug output can have the key.
type Secret struct {
	Meta
	Cert []byte // tls.crt (or cert)
	Key  []byte // tls.key (or key)
	CA   []byte // ca.crt (or cacert)
	CRL  []byte // ca.crl
	// Problem says why the content cannot be used ("tls.crt and tls.key do not belong together"); "" if it can.
	Problem string
}

// String names the secret and tells what it has.
func (s *Secret) String() string {
	return fmt.Sprintf("%s (cert %t, key %t, ca %t)", s.Meta.Key, len(s.Cert) > 0, len(s.Key) > 0, len(s.CA) > 0)
}

// GoString is String: %#v shows no key either.
func (s *Secret) GoString() string { return s.String() }

// Format prints String for every verb.
func (s *Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// ConfigMap is the part of a ConfigMap that the mesh reads: roots that a policy or gateway refers to.
type ConfigMap struct {
	Meta
	CA []byte // data ca.crt, PEM
	// Problem says why CA cannot be used ("ca.crt holds no certificate"); "" if it can.
	Problem string
}
