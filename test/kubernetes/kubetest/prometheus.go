package kubetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Prometheus is a running Prometheus of the test's own.
type Prometheus struct {
	URL string // of its HTTP API, on loopback
}

// StartPrometheus builds Prometheus unless it is there, and runs it with a configuration until the test ends.
func (c *Cluster) StartPrometheus(t testing.TB, config string) *Prometheus {
	t.Helper()
	if err := c.Bed.Prometheus(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := FreeAddress(t)
	Background(t, filepath.Join(dir, "log"), exec.Command(c.Bed.Bin("prometheus"), file, filepath.Join(dir, "data"), addr))
	return &Prometheus{"http://" + addr}
}

// FreeAddress is an address on loopback at which nobody listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Background starts a program that ends with the test, with its output in a file whose end is shown if the test fails.
func Background(t testing.TB, file string, c *exec.Cmd) {
	t.Helper()
	log, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.Dir, c.Stdout, c.Stderr = filepath.Dir(file), log, log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(file)
			t.Logf("%s:\n%s", filepath.Base(c.Path), text[max(0, len(text)-3000):])
		}
	})
}

// Has fails if a query finds nothing.
func (p *Prometheus) Has(ctx context.Context, query string) error {
	var answer struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := JSON(ctx, p.URL+"/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	if len(answer.Data.Result) == 0 {
		var targets json.RawMessage
		err := JSON(ctx, p.URL+"/api/v1/targets?state=active", &targets)
		return fmt.Errorf("no result; targets: %.2000s %v", targets, err)
	}
	return nil
}

// JSON asks for a page and takes it apart; any status but 200 is an error with its body.
func JSON(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.500s", url, resp.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s: %w: %.500s", url, err, body)
	}
	return nil
}
