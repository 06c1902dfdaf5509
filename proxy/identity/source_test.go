package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/identity/identitytest"
)

const (
	reviews = "spiffe://cluster.local/ns/default/sa/reviews"
	caAddr  = "10.0.0.1:15012"
)

// bench is a source and a certificate service on a network in memory.
type bench struct {
	root *identitytest.CA
	svc  *identitytest.Service
	net  *memnet.Network
	ca   identity.CA
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{root: identitytest.NewCA(t, "root"), net: memnet.New(memnet.Link{})}
	b.start(t, b.root)
	b.svc.Set(func(s *identitytest.Service) { s.Token, s.Once = "join", true })
	b.ca = identity.CA{
		Address: caAddr, Roots: identitytest.Pool(b.root), ClusterID: "Kubernetes",
		Token: func() (string, error) { return "join", nil },
		Dial:  func(ctx context.Context, a string) (net.Conn, error) { return b.net.DialContext(ctx, "tcp", a) },
	}
	return b
}

func (b *bench) start(t *testing.T, serving *identitytest.CA, names ...string) {
	t.Helper()
	ln, err := b.net.Listen(caAddr)
	if err != nil {
		t.Fatal(err)
	}
	b.svc = identitytest.NewService(t, ln, serving, b.root, names...)
}

// run starts a source and stops it at the end of the test.
func (b *bench) run(t *testing.T, set identity.Settings) *identity.Source {
	t.Helper()
	set.ID = identitytest.ID(t, reviews)
	if set.CA == nil {
		set.CA = &b.ca
	}
	s, err := identity.New(set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	return s
}

func ready(t *testing.T, s *identity.Source) *identity.SVID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatalf("WaitReady: %v", err)
	}
	svid, err := s.Current()
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

func TestTheFirstCertificateNeedsTheTokenAndTheNextOnesDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.svc.Set(func(s *identitytest.Service) { s.Opts = []identitytest.Option{identitytest.Life(0, 24*time.Hour)} })
		s := b.run(t, identity.Settings{})
		start := time.Now()
		first := ready(t, s)
		if first.ID.String() != reviews || len(first.Leaf().URIs) != 1 {
			t.Errorf("SVID is for %v, want %s", first.ID, reviews)
		}
		changed, gen := s.Changed(), s.Generation()
		<-changed
		if d := time.Since(start); d < 9*time.Hour+30*time.Minute || d > 14*time.Hour+30*time.Minute {
			t.Errorf("renewed after %v, want half of 24h ± 10 %% of the life", d)
		}
		second := ready(t, s)
		if second.Leaf().SerialNumber.Cmp(first.Leaf().SerialNumber) == 0 || s.Generation() <= gen {
			t.Error("the renewal is the same certificate")
		}
		calls := b.svc.Seen()
		if len(calls) != 2 || calls[0].Bearer != "Bearer join" || calls[0].Peer != "" || calls[0].Cluster != "Kubernetes" || calls[0].TTL != 86400 {
			t.Errorf("first call = %+v, want the token, the cluster and a day", calls)
		}
		if calls[1].Bearer != "" || calls[1].Peer != reviews {
			t.Errorf("second call = %+v, want mTLS and no token", calls[1])
		}
	})
}

// A join token is for one key, so the request is made again with the key of the answer that was lost.
func TestALostAnswerToTheTokenIsAskedForWithTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var mu sync.Mutex
		var asked []any // guarded by mu
		seen := func() []any {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(asked)
		}
		b.svc.Set(func(s *identitytest.Service) {
			s.Once = false
			s.Answer = func(csr *x509.CertificateRequest) ([]string, error) {
				mu.Lock()
				asked = append(asked, csr.PublicKey)
				mu.Unlock()
				if len(seen()) < 3 {
					return nil, status.Error(codes.DeadlineExceeded, "too late")
				}
				return []string{identitytest.PEM(b.root.Issue(t, reviews, csr.PublicKey)), identitytest.PEM(b.root.Cert)}, nil
			}
		})
		s := b.run(t, identity.Settings{})
		first := ready(t, s)
		keys := seen()
		if len(keys) != 3 || !reflect.DeepEqual(keys[0], keys[1]) || !reflect.DeepEqual(keys[1], keys[2]) {
			t.Fatalf("%d requests, with different keys: %v", len(keys), keys)
		}
		<-s.Changed() // the renewal
		keys = seen()
		if len(keys) != 4 || reflect.DeepEqual(keys[2], keys[3]) {
			t.Errorf("%d requests; the renewal has the old key", len(keys))
		}
		if ready(t, s).Leaf().Equal(first.Leaf()) {
			t.Error("not renewed")
		}
	})
}

func TestARefusedCertificateFallsBackToTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.svc.Set(func(s *identitytest.Service) {
			s.Once = false
			s.Opts = []identitytest.Option{identitytest.Life(0, time.Hour)}
		})
		s := b.run(t, identity.Settings{})
		ready(t, s)
		b.svc.Set(func(s *identitytest.Service) { s.RefuseMTLS = true })
		<-s.Changed()
		calls := b.svc.Seen()
		if len(calls) != 3 || calls[1].Peer != reviews || calls[1].Err == nil || calls[2].Bearer != "Bearer join" || calls[2].Err != nil {
			t.Errorf("calls = %+v, want token, refused mTLS, token", calls)
		}
	})
}

func TestTheOldCertificateServesUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.svc.Set(func(s *identitytest.Service) { s.Opts = []identitytest.Option{identitytest.Life(0, time.Hour)} })
		s := b.run(t, identity.Settings{})
		first := ready(t, s)
		b.svc.Set(func(s *identitytest.Service) { s.Down = true })
		time.Sleep(59 * time.Minute)
		if cur, err := s.Current(); err != nil || cur != first {
			t.Fatalf("after 59m: %v %v, want the first certificate", cur, err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := s.Current(); !errors.Is(err, identity.ErrExpired) {
			t.Fatalf("after its end: %v, want ErrExpired", err)
		}
		if n := len(b.svc.Seen()); n < 30 || n > 500 {
			t.Errorf("%d tries in 30 minutes, want back-off up to 30 s", n)
		}
		b.svc.Set(func(s *identitytest.Service) { s.Down, s.Token, s.Once = false, "join", true })
		if again := ready(t, s); again == first {
			t.Error("no new certificate after the authority came back")
		}
	})
}

func TestItStartsFromDiskWithoutAnAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		dir := filepath.Join(t.TempDir(), "state")
		first := ready(t, b.run(t, identity.Settings{Dir: dir}))
		synctest.Wait() // it is saved after it is there
		gone := b.ca
		gone.Address = "10.0.0.9:15012"
		again := ready(t, b.run(t, identity.Settings{Dir: dir, CA: &gone}))
		if again.Leaf().SerialNumber.Cmp(first.Leaf().SerialNumber) != 0 {
			t.Error("another certificate than the stored one")
		}
		for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "svid.pem": 0o600, "roots.pem": 0o600} {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Mode() != want {
				t.Errorf("%q: mode %v (%v), want %v", name, st.Mode(), err, want)
			}
		}
	})
}

func TestUnusableFilesAreReplaced(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
	}{
		{"a damaged key", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "svid.pem"), "-----BEGIN nonsense") }},
		{"roots that are no certificates", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "roots.pem"), "x") }},
		{"an expired certificate", func(*testing.T, string) { time.Sleep(2 * time.Hour) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				dir := t.TempDir()
				set := identity.Settings{ID: identitytest.ID(t, reviews), Dir: dir, CA: &b.ca}
				s, err := identity.New(set)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- s.Run(ctx) }()
				first := ready(t, s)
				synctest.Wait()
				cancel()
				<-done
				tt.damage(t, dir)
				b.svc.Set(func(s *identitytest.Service) { s.Token = "join" })
				fresh, err := identity.New(set)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := fresh.Current(); err == nil {
					t.Fatal("the unusable certificate was taken")
				}
				if got := ready(t, b.run(t, identity.Settings{Dir: dir})); got.Leaf().SerialNumber.Cmp(first.Leaf().SerialNumber) == 0 {
					t.Error("the old certificate came back")
				}
			})
		})
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAStoredIdentityOfSomebodyElseIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		dir := t.TempDir()
		ready(t, b.run(t, identity.Settings{Dir: dir}))
		synctest.Wait()
		s, err := identity.New(identity.Settings{ID: identitytest.ID(t, "spiffe://cluster.local/ns/default/sa/ratings"), Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Current(); !errors.Is(err, identity.ErrNone) {
			t.Errorf("Current = %v, want ErrNone", err)
		}
	})
}

// TestBadAnswersAreRefused: what the authority returns is checked before use.
func TestBadAnswersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		other := identitytest.NewCA(t, "other")
		tests := []struct {
			name   string
			answer func(csr *x509.CertificateRequest) ([]string, error)
			want   string
		}{
			{"another identity", func(csr *x509.CertificateRequest) ([]string, error) {
				return []string{identitytest.PEM(b.root.Issue(t, "spiffe://cluster.local/ns/default/sa/admin", csr.PublicKey), b.root.Cert)}, nil
			}, "certificate is for"},
			{"another key", func(*x509.CertificateRequest) ([]string, error) {
				return []string{identitytest.PEM(b.root.Issue(t, reviews, identitytest.NewKey(t).Public()), b.root.Cert)}, nil
			}, "not for our key"},
			{"a root that did not sign it", func(csr *x509.CertificateRequest) ([]string, error) {
				return []string{identitytest.PEM(b.root.Issue(t, reviews, csr.PublicKey), other.Cert)}, nil
			}, "does not chain"},
			{"no root", func(csr *x509.CertificateRequest) ([]string, error) {
				return []string{identitytest.PEM(b.root.Issue(t, reviews, csr.PublicKey))}, nil
			}, "no root"},
			{"already expired", func(csr *x509.CertificateRequest) ([]string, error) {
				return []string{identitytest.PEM(b.root.Issue(t, reviews, csr.PublicKey, identitytest.Life(-2*time.Hour, -time.Hour)), b.root.Cert)}, nil
			}, "expired"},
			{"no certificate", func(*x509.CertificateRequest) ([]string, error) { return []string{"nothing"}, nil }, "PEM"},
			{"an empty chain", func(*x509.CertificateRequest) ([]string, error) { return nil, nil }, "no PEM"},
		}
		for _, tt := range tests {
			b.svc.Set(func(s *identitytest.Service) { s.Token, s.Once, s.Answer = "join", false, tt.answer })
			log := &logLines{}
			ctx, cancel := context.WithCancel(t.Context())
			s, err := identity.New(identity.Settings{ID: identitytest.ID(t, reviews), CA: &b.ca, Log: log.logger()})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			time.Sleep(5 * time.Second)
			cancel()
			<-done
			if _, err := s.Current(); !errors.Is(err, identity.ErrNone) {
				t.Errorf("%s: Current = %v, want ErrNone", tt.name, err)
			}
			if got := log.String(); !strings.Contains(got, tt.want) {
				t.Errorf("%s: log %q, want %q in it", tt.name, got, tt.want)
			}
			if strings.Contains(log.String(), "Bearer") || strings.Contains(log.String(), "PRIVATE") {
				t.Errorf("%s: a secret is in the log", tt.name)
			}
		}
	})
}

func TestTheServerMustProveItsNameByTheRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		wrong := b.ca
		wrong.Roots = identitytest.Pool(identitytest.NewCA(t, "other"))
		name := b.ca
		name.ServerName = "somebody.else.svc"
		for what, ca := range map[string]*identity.CA{"unknown root": &wrong, "other name": &name} {
			s := b.run(t, identity.Settings{CA: ca})
			time.Sleep(20 * time.Second)
			if _, err := s.Current(); !errors.Is(err, identity.ErrNone) {
				t.Errorf("%s: Current = %v, want ErrNone", what, err)
			}
		}
		if n := len(b.svc.Seen()); n != 0 {
			t.Errorf("%d requests (with the token) reached a server that was not proven", n)
		}
	})
}

func TestARootRotationKeepsTheOldRootForOneLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		next := identitytest.NewCA(t, "next root")
		b.svc.Set(func(s *identitytest.Service) { s.Opts = []identitytest.Option{identitytest.Life(0, 2*time.Hour)} })
		s := b.run(t, identity.Settings{})
		ready(t, s)
		wantRoots := func(when string, want ...*identitytest.CA) {
			t.Helper()
			got := s.Bundle("cluster.local").Roots
			if len(got) != len(want) {
				t.Fatalf("%s: %d roots, want %d", when, len(got), len(want))
			}
			for i := range want {
				if !got[i].Equal(want[i].Cert) {
					t.Errorf("%s: root %d is %v, want %v", when, i, got[i].Subject, want[i].Cert.Subject)
				}
			}
		}
		wantRoots("at first", b.root)
		b.svc.Set(func(s *identitytest.Service) { s.Roots = []*identitytest.CA{b.root, next} })
		<-s.Changed()
		wantRoots("while both are served", b.root, next)
		b.svc.Set(func(s *identitytest.Service) { s.CA, s.Roots = next, nil })
		<-s.Changed()
		wantRoots("after the switch", b.root, next)
		time.Sleep(6 * time.Hour)
		wantRoots("a life later", next)
	})
}

func TestTrustDomains(t *testing.T) {
	root, foreign := identitytest.NewCA(t, "root"), identitytest.NewCA(t, "foreign")
	key := identitytest.NewKey(t)
	s, err := identity.New(identity.Settings{
		ID: identitytest.ID(t, reviews), Aliases: []string{"old.local"}, Federated: map[string][]*x509.Certificate{"partner": {foreign.Cert}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Bundle("cluster.local") != nil {
		t.Error("a bundle before there is a root")
	}
	if err := s.Replace([]*x509.Certificate{root.Issue(t, reviews, key.Public())}, key, []*x509.Certificate{root.Cert}); err != nil {
		t.Fatal(err)
	}
	for td, want := range map[string]*identitytest.CA{"cluster.local": root, "old.local": root, "partner": foreign} {
		if b := s.Bundle(td); b == nil || len(b.Roots) != 1 || !b.Roots[0].Equal(want.Cert) {
			t.Errorf("bundle of %s is wrong: %+v", td, b)
		}
	}
	if s.Bundle("unknown") != nil {
		t.Error("an unknown trust domain is trusted")
	}
}

func TestTransportCredentialsPresentTheCurrentCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		s := b.run(t, identity.Settings{})
		ready(t, s)
		client, server := memnet.Pipe(memnet.Link{})
		got := make(chan string, 1)
		go func() {
			c := tls.Server(server, &tls.Config{
				Certificates: []tls.Certificate{b.root.Certificate(t, "", identitytest.DNS(identity.DefaultServerName))},
				ClientAuth:   tls.RequireAnyClientCert, NextProtos: []string{"h2"},
			})
			if err := c.Handshake(); err != nil {
				got <- err.Error()
				return
			}
			got <- c.ConnectionState().PeerCertificates[0].URIs[0].String()
		}()
		c, _, err := s.TransportCredentials().ClientHandshake(t.Context(), caAddr, client)
		if err != nil {
			t.Fatal(err)
		}
		if id := <-got; id != reviews {
			t.Errorf("server saw %s, want %s", id, reviews)
		}
		_ = c.Close()
		_ = server.Close()
	})
}

func TestSettingsAreChecked(t *testing.T) {
	id := identitytest.ID(t, reviews)
	for name, set := range map[string]identity.Settings{
		"no id":      {},
		"no port":    {ID: id, CA: &identity.CA{Address: "localhost", Roots: x509.NewCertPool()}},
		"no ca root": {ID: id, CA: &identity.CA{Address: "localhost:15012"}},
	} {
		if _, err := identity.New(set); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
