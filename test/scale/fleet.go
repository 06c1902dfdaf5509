package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/spiffe"
)

// fleet is all simulated proxies.
type fleet struct {
	proxies []*proxy
	traffic traffic
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// newFleet makes the proxies of a mesh, each with a certificate of its workload.
func newFleet(s size, key ca.Material, address, serverName string) (*fleet, error) {
	authority, err := ca.New(trustDomain, key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.Roots())
	f := &fleet{}
	certs := make([]*tls.Certificate, s.Services) // one for each workload: making them is not what is measured
	for _, p := range s.pods()[:s.Proxies] {
		if certs[p.service] == nil {
			if certs[p.service], err = certificate(authority, s.namespace(p.service), serviceName(p.service)); err != nil {
				return nil, err
			}
		}
		creds := credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: serverName, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*certs[p.service]}})
		node := sidecar(p.address(), p.name(), s.namespace(p.service), serviceName(p.service), map[string]string{"app": serviceName(p.service), "version": "v1"})
		f.proxies = append(f.proxies, newProxy(node, address, creds, &f.traffic))
	}
	return f, nil
}

const trustDomain = "cluster.local"

func certificate(authority *ca.CA, namespace, account string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := spiffe.Parse(fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", trustDomain, namespace, account))
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	chain, err := authority.SignCSR(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), id, 0)
	if err != nil {
		return nil, err
	}
	out := &tls.Certificate{PrivateKey: key}
	for _, c := range chain {
		b, _ := pem.Decode([]byte(c))
		out.Certificate = append(out.Certificate, b.Bytes)
	}
	return out, nil
}

// start connects all proxies.
func (f *fleet) start(ctx context.Context) {
	ctx, f.stop = context.WithCancel(ctx)
	for _, p := range f.proxies {
		f.wg.Go(func() { p.run(ctx) })
	}
}

func (f *fleet) close() {
	if f.stop != nil {
		f.stop()
	}
	f.wg.Wait()
}

// await waits until ok holds for every proxy.
func (f *fleet) await(ctx context.Context, what string, limit time.Duration, ok func(int, *proxy) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make([]bool, len(f.proxies))
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := 0
		for i, p := range f.proxies {
			if !done[i] {
				if done[i] = ok(i, p); !done[i] {
					missing++
				}
			}
		}
		if missing == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %d of %d proxies after %s: %w", what, len(f.proxies)-missing, len(f.proxies), limit, ctx.Err())
		case <-tick.C:
		}
	}
}

// complete waits until every proxy has all that it asks for, and nothing has come for a while.
func (f *fleet) complete(ctx context.Context, limit time.Duration) error {
	if err := f.await(ctx, "connect", limit, func(_ int, p *proxy) bool { return p.complete() }); err != nil {
		return err
	}
	return f.quiet(ctx, limit)
}

// quietTime without a response means that nothing is under way. It is longer
// than the control plane waits for more changes.
const quietTime = 300 * time.Millisecond

func (f *fleet) quiet(ctx context.Context, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for last := f.traffic.responses.Load(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietTime):
		}
		now := f.traffic.responses.Load()
		if now == last {
			return nil
		}
		if last = now; time.Now().After(deadline) {
			return fmt.Errorf("responses still come after %s", limit)
		}
	}
}

// change is what one change of the mesh did.
type change struct {
	latencies []time.Duration // of each proxy, sorted
	totals
}

// follow waits until all proxies hold another version of a resource than before the change.
func (f *fleet) follow(ctx context.Context, typeURL, name string, do func() error) (change, error) {
	before, counts := make([]string, len(f.proxies)), f.traffic.now()
	for i, p := range f.proxies {
		before[i], _ = p.version(typeURL, name)
	}
	began := time.Now()
	if err := do(); err != nil {
		return change{}, err
	}
	out := change{latencies: make([]time.Duration, 0, len(f.proxies))}
	err := f.await(ctx, "change of "+name, time.Minute, func(i int, p *proxy) bool {
		v, at := p.version(typeURL, name)
		if v == before[i] {
			return false
		}
		out.latencies = append(out.latencies, at.Sub(began))
		return true
	})
	if err == nil {
		err = f.quiet(ctx, time.Minute)
	}
	out.totals = f.traffic.now().since(counts)
	slices.Sort(out.latencies)
	return out, err
}
