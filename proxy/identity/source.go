package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/spiffe"
)

// DefaultTTL is the life asked for: a day (Istio's DEFAULT_WORKLOAD_CERT_TTL). The authority may give less.
const DefaultTTL = 24 * time.Hour

// Settings of a [Source].
type Settings struct {
	// ID is the identity this workload asks for and insists on.
	ID spiffe.ID
	// Dir is the state directory; "" keeps everything in memory.
	Dir string
	// CA says where certificates come from; nil: only what is on disk.
	CA *CA
	// TTL is the life asked for; zero means [DefaultTTL].
	TTL time.Duration
	// Aliases are further trust domains that our own roots speak for (Istio's trustDomainAliases).
	Aliases []string
	// Federated are roots of other trust domains.
	Federated map[string][]*x509.Certificate
	// Log gets renewals and their failures; nil: nothing is logged.
	Log *slog.Logger
	// random is for tests: a number in [0,1) for jitter.
	random func() float64
}

// state is everything readers see, swapped whole.
type state struct {
	svid    *SVID // nil: none yet
	bundles map[string]*Bundle
	gen     uint64
	changed chan struct{} // closed when the next state is there
}

// Source gives the current identity. Make it with [New] or [Static].
type Source struct {
	set Settings
	log *slog.Logger
	cur atomic.Pointer[state]
	// joining is the key of the first certificate while its request is not answered: a join token is for one key. Run only.
	joining *ecdsa.PrivateKey

	mu    sync.Mutex
	trust trust // mu protects the trust set and publishing
}

// New makes a source and loads what the state directory holds. Files that cannot
// be used (other identity, expired, damaged) are reported to the log and left for the next renewal to replace.
func New(set Settings) (*Source, error) {
	if set.ID.IsZero() {
		return nil, fmt.Errorf("identity: no SPIFFE ID set")
	}
	if set.TTL <= 0 {
		set.TTL = DefaultTTL
	}
	if set.CA != nil {
		if err := set.CA.check(); err != nil {
			return nil, err
		}
	}
	s := &Source{set: set, log: set.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.cur.Store(&state{bundles: s.bundlesFor(nil), changed: make(chan struct{})})
	if set.Dir == "" {
		return s, nil
	}
	if err := prepareDir(set.Dir); err != nil {
		return nil, err
	}
	if err := s.load(time.Now()); err != nil {
		s.log.Warn("stored identity is not usable, asking for a new one", "dir", set.Dir, "cause", err)
	}
	return s, nil
}

// Static returns a source that holds one identity for ever: tests and
// certificates that something else renews. roots are those of the ID's trust domain.
func Static(id spiffe.ID, chain []*x509.Certificate, key crypto.Signer, roots []*x509.Certificate) (*Source, error) {
	s, err := New(Settings{ID: id})
	if err != nil {
		return nil, err
	}
	if err := s.install(chain, key, roots, time.Now()); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return s, nil
}

// Replace puts another identity in place, as a renewal would: for certificates that
// something else obtains (files, SDS).
func (s *Source) Replace(chain []*x509.Certificate, key crypto.Signer, roots []*x509.Certificate) error {
	if err := s.install(chain, key, roots, time.Now()); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// ID is the identity that this source is for.
func (s *Source) ID() spiffe.ID { return s.set.ID }

// Current is the SVID in use: [ErrNone] before the first, [ErrExpired] after its end.
func (s *Source) Current() (*SVID, error) {
	st := s.cur.Load()
	if st.svid == nil {
		return nil, ErrNone
	}
	if time.Now().After(st.svid.Leaf().NotAfter) {
		return nil, ErrExpired
	}
	return st.svid, nil
}

// Bundle returns the roots of a trust domain, nil if it is not trusted.
func (s *Source) Bundle(trustDomain string) *Bundle { return s.cur.Load().bundles[trustDomain] }

// Bundles returns all trusted domains; the map is read-only.
func (s *Source) Bundles() map[string]*Bundle { return s.cur.Load().bundles }

// Generation grows with every change of certificate or roots.
func (s *Source) Generation() uint64 { return s.cur.Load().gen }

// Changed is closed when the identity of this moment is replaced.
func (s *Source) Changed() <-chan struct{} { return s.cur.Load().changed }

// WaitReady blocks until there is a valid certificate or ctx ends.
func (s *Source) WaitReady(ctx context.Context) error {
	for {
		changed := s.Changed()
		_, err := s.Current()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// load publishes what is on disk.
func (s *Source) load(now time.Time) error {
	key, chain, roots, err := loadFiles(s.set.Dir)
	if err != nil || roots == nil {
		return err
	}
	if chain == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trust.update(roots, now, now.Add(s.set.TTL))
		s.publish(nil)
		return nil
	}
	return s.install(chain, key, roots, now)
}

// install checks a new certificate and its roots and makes them current.
func (s *Source) install(chain []*x509.Certificate, key crypto.Signer, roots []*x509.Certificate, now time.Time) error {
	if len(roots) == 0 {
		return fmt.Errorf("no root certificate came with the chain")
	}
	svid, err := newSVID(s.set.ID, chain, key, NewBundle("", roots).Pool, now)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust.update(roots, now, now.Add(svid.Leaf().NotAfter.Sub(svid.Leaf().NotBefore)))
	s.publish(svid)
	return nil
}

// expireRoots drops roots whose time is over.
func (s *Source) expireRoots(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trust.expire(now) {
		s.publish(s.cur.Load().svid)
	}
}

// publish swaps the state; mu is held.
func (s *Source) publish(svid *SVID) {
	old := s.cur.Load()
	next := &state{svid: svid, gen: old.gen + 1, bundles: s.bundlesFor(s.trust.list()), changed: make(chan struct{})}
	if svid != nil && svid != old.svid {
		svid.Generation = next.gen
	}
	s.cur.Store(next)
	close(old.changed)
}

func (s *Source) bundlesFor(roots []*x509.Certificate) map[string]*Bundle {
	out := map[string]*Bundle{}
	for td, certs := range s.set.Federated {
		out[td] = NewBundle(td, certs)
	}
	if len(roots) == 0 {
		return out
	}
	own := s.set.ID.TrustDomain()
	out[own] = NewBundle(own, roots)
	for _, a := range s.set.Aliases {
		out[a] = &Bundle{TrustDomain: a, Roots: roots, Pool: out[own].Pool}
	}
	return out
}
