package server

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/xdsclient"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/canon"
)

func testServer(t *testing.T, role xds.NodeType) *Server {
	t.Helper()
	ca := identitytest.NewCA(t, "mesh")
	s, err := New(Settings{Role: role, Name: "a-1", XDS: "127.0.0.1:1", Credentials: insecure.NewCredentials(),
		Identity: ca.Source(t, "spiffe://cluster.local/ns/default/sa/a"), Namespace: "default", IP: netip.MustParseAddr("10.0.0.1"), ServiceAccount: "a",
		StateDir: t.TempDir(), ReadFile: certificateFile(t), AccessLogFile: filepath.Join(t.TempDir(), "access"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// certificateFile stands for all files that resources name: a certificate and its key.
func certificateFile(t *testing.T) func(string) ([]byte, error) {
	c := identitytest.NewCA(t, "test").Certificate(t, "", identitytest.DNS("localhost"))
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return func(string) ([]byte, error) { return both, nil }
}

// What the control plane emits, this proxy takes: every golden output of
// translation is compiled, with the real filters, without a refusal.
// (A golden file shows some types only, so references are not followed here.)
func TestEveryGoldenOutputOfTheControlPlaneIsTaken(t *testing.T) {
	files, err := filepath.Glob("../../control/translate/testdata/*/out.*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(file), "out.grpc.") {
			continue // for proxyless gRPC
		}
		t.Run(filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			rs, err := canon.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			role := xds.Sidecar
			if strings.HasPrefix(filepath.Base(file), "out.router.") {
				role = xds.Router
			}
			s := testServer(t, role)
			for _, typeURL := range xds.PushOrder {
				var set []*xds.Resource
				for _, r := range rs {
					if r.TypeURL == typeURL {
						set = append(set, r)
					}
				}
				if _, why := s.conf.Apply(xdsclient.Update{TypeURL: typeURL, Set: set}); why != "" {
					t.Errorf("refused: %s", why)
				}
			}
		})
	}
}
