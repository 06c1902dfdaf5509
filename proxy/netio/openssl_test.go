package netio

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var suitesOfTLS13 = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

func openssl(t *testing.T, args ...string) (io.WriteCloser, *bufio.Reader) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("SKIPPED: openssl is not installed (make deps)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = w.CloseWithError(cmd.Wait()) }()
	t.Cleanup(func() { cancel(); _ = out.Close(); <-done })
	return in, bufio.NewReader(out)
}

// until reads lines until one has the text.
func until(t *testing.T, rd *bufio.Reader, text string) string {
	t.Helper()
	for {
		line, err := rd.ReadString('\n')
		if strings.Contains(line, text) {
			return line
		}
		if err != nil {
			t.Fatalf("before %q: %v", text, err)
		}
	}
}

// TestOpenSSLAsClient also updates keys, with and without asking for ours.
func TestOpenSSLAsClient(t *testing.T) {
	for _, suite := range suitesOfTLS13 {
		t.Run(suite, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ln.Close() }()
			say, hear := openssl(t, "s_client", "-connect", ln.Addr().String(), "-tls1_3", "-ciphersuites", suite)
			nc, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c := New(nc)
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if err := c.StartTLSServer(t.Context(), serverConfig(true)); err != nil {
				t.Fatal(err)
			}
			if got := tls.CipherSuiteName(c.TLSState().CipherSuite); got != suite {
				t.Fatalf("agreed on %s", got)
			}
			updates := 0
			for i, command := range []string{"", "k\n", "K\n", "K\n"} { // k: new keys; K: and asks for ours
				_, _ = io.WriteString(say, command)
				if command != "" {
					until(t, hear, "KEYUPDATE")
				}
				_, _ = io.WriteString(say, "hello\n")
				got := make([]byte, 6)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello\n" {
					t.Fatalf("%d: %q, %v", i, got, err)
				}
				if c.tls.Load().session.(*records).asked.Load() {
					updates++
				}
				answer := strings.Repeat("x", 40000) + "|answer\n"
				if _, err := io.WriteString(c, answer); err != nil {
					t.Fatal(err)
				}
				if got := until(t, hear, "|answer"); !strings.HasSuffix(got, answer[30000:]) {
					t.Errorf("%d: %d bytes", i, len(got))
				}
			}
			if updates != 2 {
				t.Errorf("%d of the client's updates asked for ours", updates)
			}
			_ = say.Close() // and the client ends
			if n, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

// TestOpenSSLAsServer sends tickets of its own.
func TestOpenSSLAsServer(t *testing.T) {
	dir := t.TempDir()
	cert := certificate()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var both bytes.Buffer
	_ = pem.Encode(&both, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	_ = pem.Encode(&both, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	file := filepath.Join(dir, "both.pem")
	if err := os.WriteFile(file, both.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, suite := range suitesOfTLS13 {
		t.Run(suite, func(t *testing.T) {
			_, hear := openssl(t, "s_server", "-accept", "127.0.0.1:0", "-cert", file, "-tls1_3", "-ciphersuites", suite, "-rev", "-naccept", "1")
			addr := strings.TrimSpace(strings.TrimPrefix(until(t, hear, "ACCEPT"), "ACCEPT"))
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c := New(nc)
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if err := c.StartTLSClient(t.Context(), clientConfig()); err != nil {
				t.Fatal(err)
			}
			if _, ok := c.tls.Load().session.(*records); !ok || tls.CipherSuiteName(c.TLSState().CipherSuite) != suite {
				t.Fatalf("ours %v, %s", ok, tls.CipherSuiteName(c.TLSState().CipherSuite))
			}
			for range 3 {
				if _, err := io.WriteString(c, "abcdef\n"); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 7)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "fedcba\n" {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			if n, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("after close_notify: %d, %v", n, err)
			}
		})
	}
}
