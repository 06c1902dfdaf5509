package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serverEnd is a server with the server's certificate and whatever rules; it answers as the backend does.
func serverEnd(t *testing.T, dir string, change func(*tls.Config)) *running {
	t.Helper()
	base := filepath.Join(dir, serverAccount)
	cert, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true}
	change(cfg)
	l, err := tls.Listen("tcp", loopback+":0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serveH1(c)
			}()
		}
	}()
	p, err := findPeer("haproxy")
	if err != nil {
		t.Fatal(err)
	}
	return &running{peer: p, kind: kindPair, confs: []*conf{{Role: "b", Listen: l.Addr().(*net.TCPAddr).Port}}}
}

// TestWhatIsNotMTLSIsFound tries the ways in which a peer could do less than it has to.
func TestWhatIsNotMTLSIsFound(t *testing.T) {
	dir := t.TempDir()
	if err := writeCerts(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	onlyClient := func(c tls.ConnectionState) error {
		if len(c.PeerCertificates) == 0 || c.PeerCertificates[0].Subject.CommonName != clientAccount {
			return os.ErrPermission
		}
		return nil
	}
	tests := []struct {
		name   string
		change func(*tls.Config)
		want   string // in the error; "" is none
	}{
		{"all is checked", func(c *tls.Config) {
			c.ClientAuth, c.ClientCAs, c.VerifyConnection = tls.RequireAndVerifyClientCert, roots, onlyClient
		}, ""},
		{"clients are not asked", func(*tls.Config) {}, "a client without a certificate gets an answer"},
		{"any identity will do", func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, roots }, "a client with another identity gets an answer"},
		{"an older TLS", func(c *tls.Config) {
			c.MaxVersion = tls.VersionTLS12
		}, "the right client: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &env{dir: dir}
			err := e.proveMTLS(serverEnd(t, dir, tt.change))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMissingFieldsAreFound(t *testing.T) {
	full := "GET /head HTTP/1.1\r\nX-Request-Id: 1\r\nX-Forwarded-Proto: http\r\nTraceparent: 00-1\r\nX-Envoy-Attempt-Count: 1\r\n"
	tests := []struct {
		name, kind, head, want string
	}{
		{"one proxy, complete", kindH1, full, ""},
		{"no trace context", kindH1, strings.Replace(full, "Traceparent", "X-Trace", 1), "did not add traceparent"},
		{"an empty request ID", kindH2, strings.Replace(full, "X-Request-Id: 1", "x-request-id: ", 1), "did not add x-request-id"},
		{"a pair that does not say who called", kindPair, full, "did not add x-forwarded-client-cert"},
		{"a pair that names somebody else", kindGRPC, full + "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/default/sa/other\r\n", "does not name bench-client"},
		{"a pair, complete", kindGRPC, full + "X-Forwarded-Client-Cert: URI=" + spiffeID(clientAccount) + "\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := checkHead(tt.kind, []byte(tt.head))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestProxiesThatDoNotCountAreFound measures a proxy whose metrics stand still.
func TestProxiesThatDoNotCountAreFound(t *testing.T) {
	counts := []int64{5, 7}
	r := &running{peer: &peer{name: "p", count: func(c *conf) (int64, error) { return counts[c.Listen], nil }}, confs: []*conf{{Role: "a"}, {Role: "b", Listen: 1}}}
	before, err := r.counted()
	if err != nil {
		t.Fatal(err)
	}
	counts = []int64{15, 7}
	if err := r.checkCounted(before, 10); err == nil || !strings.Contains(err.Error(), `metrics are missing: 10 requests were answered, end "b" counted 0`) {
		t.Errorf("error %v, want that end b counts nothing", err)
	}
	counts = []int64{15, 17}
	if err := r.checkCounted(before, 10); err != nil {
		t.Error(err)
	}
}

// TestPeersDoTheirWork starts each peer that is installed for each kind once: start verifies it.
func TestPeersDoTheirWork(t *testing.T) {
	if testing.Short() {
		t.Skip("runs proxies")
	}
	dir := t.TempDir()
	if err := writeCerts(dir); err != nil {
		t.Fatal(err)
	}
	b, err := startBackend()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	e := &env{dir: dir, backend: b, bins: map[string]string{}, commands: map[string]string{}}
	for _, p := range peers {
		if p.weft || p.name == directName {
			continue
		}
		p, err := findPeer(p.name + "@2")
		if err != nil {
			t.Fatal(err)
		}
		t.Run(p.name, func(t *testing.T) {
			bin, err := p.find()
			if err != nil && p.program == "caddy" {
				t.Log(err) // only benchmarks install it
				return
			}
			if err != nil {
				t.Skip(err)
			}
			e.bins[p.name] = bin
			for _, kind := range []string{kindH1, kindPair, kindH2, kindGRPC, kindH1H2, kindTCP, kindTLS} {
				if p.cannot[kind] != "" || p.floor && kind != kindH1 && kind != kindPair {
					continue
				}
				r, err := e.start(p, kind)
				if err != nil {
					t.Errorf("%s: %v", kind, err)
					continue
				}
				r.stop()
			}
		})
	}
}

// TestLargeBodiesAreCompared sends one that is not what the backend expects.
func TestLargeBodiesAreCompared(t *testing.T) {
	b, err := startBackend()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	at := target{addr: b.listeners[0].Addr().String()}
	wrong := h1Post()
	wrong[len(wrong)-7] ^= 1
	for _, tt := range []struct {
		name string
		req  []byte
		want []byte
		ok   bool
	}{{"upload", h1Post(), h1Body, true}, {"one bit is wrong", wrong, h1Body, false}, {"download", h1Get(bigPath), bigBody, true}, {"download of something else", h1Get("/"), bigBody, false}} {
		l, err := openH1Request(1, tt.req, tt.want)(at)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := l.run(ctx, 10*time.Millisecond); (err == nil) != tt.ok {
			t.Errorf("%s: error %v, want one: %v", tt.name, err, !tt.ok)
		}
		cancel()
		l.close()
	}
}
