// Package derivetest tests front ends of the model by cases: files of manifests with what must come out of them.
package derivetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/control/derive"
	"weft.mesh/weft/model"
)

var update = flag.Bool("update", false, "rewrite golden files")

// Cases lists the files of testdata/cases; fewer than least fail the test.
func Cases(t testing.TB, least int) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) < least {
		t.Fatalf("%d cases (%v), want at least %d", len(files), err, least)
	}
	return files
}

// Name is a case's, for its sub-test.
func Name(path string) string { return strings.TrimSuffix(filepath.Base(path), ".yaml") }

// Text is a file with $CERT, $KEY (base64 of PEM) and $PEM (a JSON string) replaced by one certificate of this process.
func Text(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return certificate().Replace(string(text))
}

var certificate = sync.OnceValue(func() *strings.Replacer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return strings.NewReplacer("$CERT", base64.StdEncoding.EncodeToString(cert), "$KEY", base64.StdEncoding.EncodeToString(private), "$PEM", strconv.Quote(string(cert)))
})

// Check compares a case's result with its golden file (-update writes it), and with what the case itself says: its lines
// "# want:" and "# never:" hold whatever the golden file says, so that one that is rewritten carelessly does not hide a loss.
func Check(t *testing.T, path, got string) {
	t.Helper()
	wants(t, path, got)
	golden := strings.TrimSuffix(path, ".yaml") + ".golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v; write it with -update", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func wants(t *testing.T, path, got string) {
	t.Helper()
	n := 0
	flat := strings.Join(strings.Fields(got), " ")
	for line := range strings.Lines(Text(t, path)) {
		if want, ok := strings.CutPrefix(strings.TrimSpace(line), "# want: "); ok {
			if n++; !strings.Contains(flat, want) {
				t.Errorf("the result lacks %q:\n%s", want, got)
			}
		}
		if never, ok := strings.CutPrefix(strings.TrimSpace(line), "# never: "); ok {
			if n++; strings.Contains(flat, never) {
				t.Errorf("the result has %q:\n%s", never, got)
			}
		}
	}
	if n == 0 {
		t.Errorf("%s says nothing that it wants", path)
	}
}

// InOrder is 0 to n-1: the objects as they are written.
func InOrder(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// World is what the changes that a front end told add up to.
type World map[model.Key][]model.Object

// Apply takes changes in.
func (w World) Apply(t *testing.T, changes []derive.Change) {
	t.Helper()
	for _, ch := range changes {
		if ch.Objects == nil {
			if _, ok := w[ch.Key]; !ok {
				t.Errorf("%s is removed and was not there", ch.Key)
			}
			delete(w, ch.Key)
			continue
		}
		w[ch.Key] = ch.Objects
	}
}
