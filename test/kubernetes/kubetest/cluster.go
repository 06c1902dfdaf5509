// Package kubetest is what tests on a running cluster have in common: kubectl,
// namespaces that go away, waiting, load at a fixed rate, and what a person
// wants to see when a test fails.
//
// The cluster is started by `go run ./test/kubernetes/cluster run -- COMMAND` (make
// test-kubernetes), which sets WEFT_KUBERNETES. Without it every test skips
// with one line.
package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/testbed"
)

// Cluster is a running cluster as a test's own process reaches it.
type Cluster struct {
	Bed *testbed.Bed
}

// New is the running cluster.
func New(t testing.TB) *Cluster {
	t.Helper()
	if os.Getenv("WEFT_KUBERNETES") == "" {
		t.Skip("SKIPPED: needs a cluster: run make test-kubernetes (root)")
	}
	bed, err := testbed.Find(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if !bed.Running() {
		t.Fatal("WEFT_KUBERNETES is set, but no cluster is running: go run ./test/kubernetes/cluster up")
	}
	return &Cluster{bed}
}

// Try runs kubectl and returns what it printed; its complaints are part of the error.
func (c *Cluster) Try(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Bed.Bin("kubectl"), args...)
	cmd.Env = c.Bed.Environment()
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), &CommandError{args, strings.TrimSpace(complaints.String()), err}
	}
	return out.String(), nil
}

// CommandError is kubectl's failure.
type CommandError struct {
	Args   []string
	Stderr string
	Err    error
}

func (e *CommandError) Error() string {
	return "kubectl " + strings.Join(e.Args, " ") + ": " + e.Err.Error() + ": " + e.Stderr
}

func (e *CommandError) Unwrap() error { return e.Err }

// Kubectl is [Cluster.Try], and a failure ends the test.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.Try(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Apply applies manifests to a namespace ("" for the one they name).
func (c *Cluster) Apply(t testing.TB, namespace, manifests string) {
	t.Helper()
	if _, err := c.Try(t.Context(), manifests, in(namespace, "apply", "-f", "-")...); err != nil {
		t.Fatal(err)
	}
}

// ApplyFiles applies files of the checkout.
func (c *Cluster) ApplyFiles(t testing.TB, namespace string, files ...string) {
	t.Helper()
	for _, f := range files {
		c.Kubectl(t, in(namespace, "apply", "-f", c.Bed.Module+"/"+f)...)
	}
}

func in(namespace string, args ...string) []string {
	if namespace == "" {
		return args
	}
	return append([]string{"-n", namespace}, args...)
}

// Namespace makes a namespace with labels ("key=value") that goes away with the
// test. When the test fails its pods, events and logs are printed first.
func (c *Cluster) Namespace(t testing.TB, name string, labels ...string) string {
	t.Helper()
	c.Kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		if t.Failed() {
			c.Explain(ctx, t, name)
		}
		if _, err := c.Try(ctx, "", "delete", "namespace", name, "--wait=true", "--timeout=60s"); err != nil {
			t.Error(err)
		}
	})
	if len(labels) > 0 {
		c.Kubectl(t, append([]string{"label", "namespace", name}, labels...)...)
	}
	c.Eventually(t, 20*time.Second, "the default service account of "+name, func(ctx context.Context) error {
		_, err := c.Try(ctx, "", "-n", name, "get", "serviceaccount", "default")
		return err
	})
	return name
}

// Ready waits until every Deployment of the namespace is rolled out: all pods
// ready, none of before.
func (c *Cluster) Ready(t testing.TB, namespace string) {
	t.Helper()
	for _, d := range strings.Fields(c.Kubectl(t, "-n", namespace, "get", "deployments", "-o", "name")) {
		c.Kubectl(t, "-n", namespace, "rollout", "status", d, "--timeout=120s")
	}
}

// Exec runs a command in a pod ("deployment/sleep" takes one of its pods); the error has what it complained.
func (c *Cluster) Exec(ctx context.Context, namespace, target, container string, argv ...string) (string, error) {
	args := []string{"-n", namespace, "exec", target}
	if container != "" {
		args = append(args, "-c", container)
	}
	return c.Try(ctx, "", append(append(args, "--"), argv...)...)
}

// Field reads one field of an object by JSON path.
func (c *Cluster) Field(t testing.TB, namespace, object, path string) string {
	t.Helper()
	return c.Kubectl(t, in(namespace, "get", object, "-o", "jsonpath="+path)...)
}

// Eventually repeats a check until it holds; the last failure ends the test.
func (c *Cluster) Eventually(t testing.TB, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	last := errors.New("never checked")
	for ctx.Err() == nil {
		err := check(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatalf("%s: not within %s: %v", what, limit, last)
}

// Explain prints a namespace's pods, events and the ends of all logs.
func (c *Cluster) Explain(ctx context.Context, t testing.TB, namespace string) {
	show := func(title string, args ...string) string {
		out, err := c.Try(ctx, "", append([]string{"-n", namespace}, args...)...)
		if err != nil {
			out += err.Error()
		}
		t.Logf("--- %s: %s\n%s", namespace, title, out)
		return out
	}
	show("pods", "get", "pods", "-o", "wide")
	show("events", "get", "events", "--sort-by=.lastTimestamp")
	pods, _ := c.Try(ctx, "", "-n", namespace, "get", "pods", "-o", "name")
	for _, p := range strings.Fields(pods) {
		show("logs of "+p, "logs", p, "--all-containers", "--prefix", "--tail=25")
	}
}

// PortForward asks a port of a pod through the API server: from the pod's own
// loopback, past its sidecar.
func (c *Cluster) PortForward(ctx context.Context, namespace, pod string, port int, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Bed.Bin("kubectl"), "-n", namespace, "port-forward", "pod/"+pod, fmt.Sprintf(":%d", port), "--address=127.0.0.1")
	cmd.Env = c.Bed.Environment()
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n') // Forwarding from 127.0.0.1:PORT -> 8080
	if err != nil {
		return "", fmt.Errorf("port-forward to %s: %w: %s", pod, err, complaints.String())
	}
	addr, _, _ := strings.Cut(strings.TrimPrefix(line, "Forwarding from "), " ")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return string(body), err
}
