package identity

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weft.mesh/weft/internal/backoff"
)

// rotateJitter spreads renewals: half life ± 10 %.
const rotateJitter = 0.1

// rootSweep is how often retired roots are looked at, at most.
const rootSweep = time.Hour

// Run gets the first certificate if there is none and renews it at half of its
// life until ctx ends. Failures are retried with back-off for ever; the old
// certificate serves until it expires. It returns nil when ctx ends.
func (s *Source) Run(ctx context.Context) error {
	if s.set.CA == nil {
		<-ctx.Done()
		return nil
	}
	retry := backoff.New(backoff.Policy{Base: 250 * time.Millisecond, Max: 30 * time.Second, Jitter: 0.5}, s.set.random)
	for ctx.Err() == nil {
		if d := s.untilRenewal(time.Now()); d > 0 {
			s.sleep(ctx, d)
			continue
		}
		err := s.renew(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			retry.Reset()
			cur := s.cur.Load().svid.Leaf()
			s.log.Info("certificate issued", "id", s.set.ID.String(), "serial", cur.SerialNumber.Text(16), "expires", cur.NotAfter)
			continue
		}
		s.log.Warn("certificate request failed", "retries", retry.Retries(), "cause", err)
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
	return nil
}

// renew tries the current certificate first, then the join token.
func (s *Source) renew(ctx context.Context) error {
	if _, err := s.Current(); err == nil {
		err = s.issue(ctx, false)
		if err == nil || s.set.CA.Token == nil || !refused(err) {
			return err
		}
	}
	return s.issue(ctx, true)
}

// refused tells whether another way to authenticate could help.
func refused(err error) bool {
	c := status.Code(unwrapStatus(err))
	return c == codes.Unauthenticated || c == codes.PermissionDenied
}

// untilRenewal is the time until half of the certificate's life is over, spread
// by jitter that is fixed for each certificate; zero or less: now.
func (s *Source) untilRenewal(now time.Time) time.Duration {
	svid := s.cur.Load().svid
	if svid == nil {
		return 0
	}
	leaf := svid.Leaf()
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	half := leaf.NotBefore.Add(time.Duration(float64(life) * (0.5 + rotateJitter*(2*s.jitter(svid)-1))))
	return half.Sub(now)
}

// jitter is a number in [0,1) that belongs to one certificate: derived from its serial number, so that it survives a restart.
func (s *Source) jitter(svid *SVID) float64 {
	if s.set.random != nil {
		return s.set.random()
	}
	var seed uint64
	for _, b := range svid.Leaf().SerialNumber.Bytes() {
		seed = seed*31 + uint64(b)
	}
	return rand.New(rand.NewPCG(seed, 0)).Float64()
}

// sleep waits at most rootSweep, then lets retired roots go.
func (s *Source) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(min(d, rootSweep))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		s.expireRoots(time.Now())
	}
}

func unwrapStatus(err error) error {
	for e := err; e != nil; {
		if _, ok := e.(interface{ GRPCStatus() *status.Status }); ok {
			return e
		}
		switch u := e.(type) {
		case interface{ Unwrap() error }:
			e = u.Unwrap()
		case interface{ Unwrap() []error }:
			for _, c := range u.Unwrap() {
				if s := unwrapStatus(c); s != nil {
					return s
				}
			}
			return nil
		default:
			return nil
		}
	}
	return nil
}
