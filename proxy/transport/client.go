package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/spiffe"
)

// maxCached bounds the cache of TLS settings. It is emptied when full: entries
// of replaced configurations have no other end.
const maxCached = 4096

// tlsCache holds one *tls.Config for each (settings, generation of the identity).
type tlsCache struct {
	mu sync.RWMutex
	m  map[any]cached
}

type cached struct {
	gen uint64
	cfg *tls.Config
}

func (c *tlsCache) get(key any, gen uint64) *tls.Config {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e, ok := c.m[key]; ok && e.gen == gen {
		return e.cfg
	}
	return nil
}

func (c *tlsCache) put(key any, gen uint64, cfg *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxCached {
		c.m = map[any]cached{}
	}
	c.m[key] = cached{gen, cfg}
}

// clientKey tells apart what a tls.Config depends on beside the identity.
type clientKey struct {
	up     *config.UpstreamTLS
	sni    string
	alpn   string
	expect spiffe.ID
}

// clientConfig builds the client's side, or takes it from the cache. sni and
// alpn, if not empty, replace those of up.
func (d *Dialer) clientConfig(up *config.UpstreamTLS, sni string, alpn []string, expect spiffe.ID) (*tls.Config, error) {
	src := d.set.Identity
	var gen uint64
	if up.Workload {
		if src == nil {
			return nil, errors.New("mTLS: this proxy has no workload identity")
		}
		gen = src.Generation()
	}
	key := clientKey{up: up, sni: sni, expect: expect}
	if len(alpn) > 0 {
		key.alpn = fmt.Sprint(alpn)
	}
	if cfg := d.cache.get(key, gen); cfg != nil && !d.expired(up) {
		return cfg, nil
	}
	cfg, err := d.buildClient(up, sni, alpn, expect)
	if err != nil {
		return nil, err
	}
	d.cache.put(key, gen, cfg)
	return cfg, nil
}

// expired tells whether our certificate's time is over although nothing replaced it.
func (d *Dialer) expired(up *config.UpstreamTLS) bool {
	if !up.Workload {
		return false
	}
	_, err := d.set.Identity.Current()
	return err != nil
}

func (d *Dialer) buildClient(up *config.UpstreamTLS, sni string, alpn []string, expect spiffe.ID) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:                  up.MinVersion,
		MaxVersion:                  up.MaxVersion,
		CipherSuites:                up.CipherSuites,
		NextProtos:                  slices.Clone(up.ALPN),
		ServerName:                  up.SNI,
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      true,
		// Verification is ours, below: SVIDs have no DNS name to compare, and SAN conditions replace the host name.
		InsecureSkipVerify: true,
	}
	if sni != "" {
		cfg.ServerName = sni
	}
	if len(alpn) > 0 {
		cfg.NextProtos = slices.Clone(alpn)
	}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
		if up.Workload {
			cfg.MinVersion = tls.VersionTLS13
		}
	}
	if !up.Workload {
		cfg.Certificates = up.Certificates
		cfg.VerifyConnection = plainVerifier(up, cfg.ServerName)
		return cfg, nil
	}
	svid, err := d.set.Identity.Current()
	if err != nil {
		return nil, err
	}
	cfg.Certificates = []tls.Certificate{svid.TLS}
	// A cached config is used until the generation changes, so these bundles are current.
	cfg.VerifyConnection = workloadVerifier(d.set.Identity.Bundles(), up.SANs, expect)
	return cfg, nil
}

// workloadVerifier wants an SVID of a trusted domain that one of the conditions allows.
func workloadVerifier(bundles map[string]*identity.Bundle, sans []config.SANMatch, expect spiffe.ID) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		id, err := verifySVID(cs.PeerCertificates, bundles, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return fmt.Errorf("verify server: %w", err)
		}
		if !expect.IsZero() && id != expect {
			return fmt.Errorf("verify server: %w: is %s, want %s", ErrSAN, id, expect)
		}
		if err := matchSANs(cs.PeerCertificates[0], sans); err != nil {
			return fmt.Errorf("verify server: %w", err)
		}
		return nil
	}
}

// plainVerifier checks a server outside the mesh: by roots, and by the SAN
// conditions or else by the host name. With roots given and neither SAN conditions nor a
// name, the chain alone is checked, as Envoy does.
func plainVerifier(up *config.UpstreamTLS, name string) func(tls.ConnectionState) error {
	sans, roots, insecure := up.SANs, up.RootCAs, up.Insecure
	return func(cs tls.ConnectionState) error {
		if insecure {
			return nil
		}
		check := name
		if len(sans) > 0 {
			check = ""
		}
		if check == "" && len(sans) == 0 && roots == nil {
			return errors.New("verify server: neither a name, a subject alternative name nor roots to verify with")
		}
		if err := verifyChain(cs.PeerCertificates, roots, check, x509.ExtKeyUsageServerAuth); err != nil {
			return fmt.Errorf("verify server: %w", err)
		}
		if err := matchSANs(cs.PeerCertificates[0], sans); err != nil {
			return fmt.Errorf("verify server: %w", err)
		}
		return nil
	}
}
