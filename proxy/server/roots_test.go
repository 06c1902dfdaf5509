package server

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/identity/identitytest"
)

func TestRootsFileIsReadAgainWhenItChanges(t *testing.T) {
	a, b := identitytest.NewCA(t, "cluster.local"), identitytest.NewCA(t, "cluster.local")
	path := filepath.Join(t.TempDir(), "root-cert.pem")
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	s := &Server{set: Settings{CARootsFile: path, Log: slog.New(slog.NewTextHandler(&log, nil))}}
	if _, err := s.controlRoots(); err == nil || !strings.Contains(err.Error(), "istio-ca-root-cert") {
		t.Errorf("without the file: %v", err)
	}
	write([]byte(identitytest.PEM(a.Cert)))
	pool, err := s.controlRoots()
	if err != nil {
		t.Fatal(err)
	}
	first := pool()
	if pool() != first {
		t.Error("an unchanged file gave another pool")
	}
	write([]byte(identitytest.PEM(a.Cert, b.Cert)))
	second := pool()
	if second.Equal(first) {
		t.Error("a changed file gave the same roots")
	}
	write([]byte("rubbish"))
	if pool() != second || !strings.Contains(log.String(), "not usable") {
		t.Errorf("a damaged file: %s", log.String())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if pool() != second {
		t.Error("a removed file changed the roots")
	}
}
