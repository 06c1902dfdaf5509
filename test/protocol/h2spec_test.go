package protocol

import (
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// h2specVersion is the conformance suite for RFC 7540 and 7541 that every HTTP/2 server is measured with.
const h2specVersion = "v2.2.1+incompatible"

// h2specModule pins it and what it is built from. It has no go.mod, so it cannot do so itself.
const h2specModule = `module h2spec.tool

go 1.26

require (
	github.com/fatih/color v1.19.0
	github.com/spf13/cobra v1.10.2
	github.com/summerwind/h2spec ` + h2specVersion + `
	golang.org/x/net v0.62.0
)
`

// h2specCases is how many cases its strict mode has; fewer would mean that some did not run.
const h2specCases = 146

// h2spec finds the program in the checkout's cache, or builds it there.
func h2spec(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, ".cache", "h2spec-"+h2specVersion)
	bin := filepath.Join(dir, "h2spec")
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	tmp := t.TempDir() // a module of its own: the suite is no dependency of ours
	if err := os.WriteFile(filepath.Join(tmp, "go.mod"), []byte(h2specModule), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", bin, "github.com/summerwind/h2spec/cmd/h2spec")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("h2spec cannot be built (it needs the module proxy or a filled module cache): %v\n%s", err, out)
	}
	return bin
}

// report is h2spec's JUnit report.
type report struct {
	Suites []struct {
		Package string `xml:"package,attr"`
		Cases   []struct {
			Package string `xml:"package,attr"`
			Name    string `xml:"classname,attr"`
			Failure string `xml:"failure"`
			Error   string `xml:"error"`
			Skipped *struct {
			} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func TestEveryCaseOfH2specPassesInStrictMode(t *testing.T) {
	bin := h2spec(t)
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port})
	// The application reads the whole request before it answers. (An answer that comes before
	// the request is complete ends it with NO_ERROR; what h2spec sends after that is ignored, rightly.)
	for _, tc := range []struct {
		name   string
		port   int
		path   string
		args   []string
		except string
	}{
		{"h2c, answered by an HTTP/1 upstream", r.h2c, "/", nil, ""},
		{"h2c, answered by an HTTP/2 upstream", r.h2c, "/h2/", nil, ""},
		// Who does not begin with the preface speaks HTTP/1 there, and what h2spec sends is a 400 in that language:
		// see TestWhatIsNeitherHTTP1NorHTTP2Gets400AndTheEnd. (RFC 9113 section 3.4: "the peer is not using HTTP/2"; RFC 9112
		// section 3: 400. Envoy 1.40 with codec_type AUTO sends the same.)
		{"h2c beside HTTP/1", r.plain, "/", nil, "Sends invalid connection preface"},
		{"h2 over TLS, answered by an HTTP/1 upstream", r.tls, "/", []string{"--tls", "--insecure"}, ""},
		{"h2 over TLS, answered by an HTTP/2 upstream", r.tls, "/h2/", []string{"--tls", "--insecure"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.xml")
			args := append([]string{"--strict", "--host", "127.0.0.1", "--port", strconv.Itoa(tc.port), "--path", tc.path, "--timeout", "4", "--junit-report", file}, tc.args...)
			out, runErr := exec.Command(bin, args...).CombinedOutput()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("no report: %v (%v)\n%s", err, runErr, out)
			}
			var rep report
			if err := xml.Unmarshal(b, &rep); err != nil {
				t.Fatal(err)
			}
			total, failed := 0, 0
			for _, s := range rep.Suites {
				for _, c := range s.Cases {
					total++
					if c.Failure+c.Error != "" && c.Name == tc.except {
						failed++
						continue
					}
					if c.Failure != "" || c.Error != "" || c.Skipped != nil {
						t.Errorf("%s: %s: %s%s (skipped: %v)", c.Package, c.Name, strings.TrimSpace(c.Failure), strings.TrimSpace(c.Error), c.Skipped != nil)
					}
				}
			}
			if total < h2specCases {
				t.Errorf("%d cases ran, want %d", total, h2specCases)
			}
			if runErr != nil && failed == 0 {
				t.Errorf("h2spec: %v\n%s", runErr, out[max(0, len(out)-3000):])
			}
			t.Logf("%d cases", total)
		})
	}
}

func TestWhatIsNeitherHTTP1NorHTTP2Gets400AndTheEnd(t *testing.T) {
	app := proxytest.StartApp(t, "app")
	r := startRig(t, rigOptions{app: app.Port})
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.plain))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "INVALID CONNECTION PREFACE\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v", b, err)
	}
}
