package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/cli/tour"
)

// maxOutput bounds what a task reads of a program, in bytes.
const maxOutput = 4 << 20

// meshClient is a running mesh as the tour sees it: through its sockets and its ingress.
type meshClient struct {
	app *app
	tour.Browser
}

var _ tour.Mesh = (*meshClient)(nil)

// Apply implements tour.Mesh.
func (m *meshClient) Apply(ctx context.Context, files []admin.File) error {
	resp, err := m.app.mesh().Apply(ctx, admin.ApplyRequest{Files: files})
	return m.changed(ctx, resp, err)
}

// Delete implements tour.Mesh.
func (m *meshClient) Delete(ctx context.Context, files []admin.File) error {
	resp, err := m.app.mesh().Delete(ctx, admin.DeleteRequest{Files: files})
	return m.changed(ctx, resp, err)
}

// changed waits until all proxies have what was changed.
func (m *meshClient) changed(ctx context.Context, resp admin.ApplyResponse, err error) error {
	if err != nil {
		return err
	}
	for _, d := range resp.Diagnostics {
		if d.Severity == admin.SeverityError {
			return fmt.Errorf("%s%s %s: %s", position(d), d.Object, d.Field, d.Message)
		}
	}
	return m.app.settle(ctx, resp.World)
}

func (m *meshClient) pods(ctx context.Context) ([]admin.Pod, error) {
	return m.app.mesh().Pods(ctx)
}

// deployment lists the pods of a Deployment that take traffic.
func (m *meshClient) deployment(ctx context.Context, ns, name string) ([]admin.Pod, error) {
	all, err := m.pods(ctx)
	if err != nil {
		return nil, err
	}
	var out []admin.Pod
	for _, p := range all {
		if p.Namespace == ns && p.Deployment == name && p.Phase != admin.PodStopping {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("deployment %s/%s has no pod", ns, name)
	}
	return out, nil
}

// Exec implements tour.Mesh.
func (m *meshClient) Exec(ctx context.Context, ns, name string, command ...string) (*tour.Output, error) {
	pods, err := m.deployment(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	stdout, err := newCapture()
	if err != nil {
		return nil, err
	}
	defer stdout.close()
	stderr, err := newCapture()
	if err != nil {
		return nil, err
	}
	defer stderr.close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	req := admin.ExecRequest{Namespace: ns, Pod: pods[0].Name, Command: command}
	code, err := m.app.mesh().Exec(ctx, req, null, stdout.w, stderr.w)
	if err != nil {
		return nil, fmt.Errorf("run %q in %s/%s: %w", command[0], ns, pods[0].Name, err)
	}
	return &tour.Output{Stdout: stdout.end(), Stderr: stderr.end(), Code: code}, nil
}

// capture reads a pipe to its end, bounded.
type capture struct {
	r, w *os.File
	done chan struct{}
	buf  bytes.Buffer
}

func newCapture() (*capture, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := &capture{r: r, w: w, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_, _ = io.Copy(&c.buf, io.LimitReader(r, maxOutput)) // what was read counts
		_, _ = io.Copy(io.Discard, r)
	}()
	return c, nil
}

// end closes our end of the pipe and returns what came through it.
func (c *capture) end() string {
	c.w.Close()
	<-c.done
	return c.buf.String()
}

func (c *capture) close() {
	c.w.Close()
	<-c.done
	c.r.Close()
}

// Metrics implements tour.Mesh.
func (m *meshClient) Metrics(ctx context.Context, ns, name string) (tour.Metrics, error) {
	pods, err := m.deployment(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	all := tour.Metrics{}
	for _, p := range pods {
		one, err := m.scrape(ctx, p)
		if err != nil {
			return nil, err
		}
		all.Merge(one)
	}
	return all, nil
}

func (m *meshClient) scrape(ctx context.Context, p admin.Pod) (tour.Metrics, error) {
	b, err := m.app.adminGet(ctx, podRef{p.Namespace, p.Name}, "/stats/prometheus")
	if err != nil {
		return nil, err
	}
	return tour.ParseMetrics(bytes.NewReader(b))
}

// readyTimeout bounds a rollout.
const readyTimeout = 90 * time.Second

// Ready implements tour.Mesh.
func (m *meshClient) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		waiting, err := m.rolling(ctx)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			st, err := m.app.mesh().Status(ctx)
			if err != nil {
				return err
			}
			return m.app.settle(ctx, st.World)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), fmt.Errorf("not ready: %s", strings.Join(waiting, ", ")))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// rolling lists the Deployments whose pods are not yet as the control plane's objects want them, and
// pods that start or end.
func (m *meshClient) rolling(ctx context.Context) ([]string, error) {
	objects, err := m.app.mesh().Find(ctx, client.Find{Kind: "Deployment"})
	if err != nil {
		return nil, err
	}
	rollouts, err := m.app.mesh().Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := m.pods(ctx)
	if err != nil {
		return nil, err
	}
	return append(behindObjects(objects, rollouts), unsettled(pods)...), nil
}

// behindObjects lists the Deployments whose rollout has not ended, or not begun.
func behindObjects(objects []admin.Object, rollouts []admin.Rollout) []string {
	known := map[admin.ObjectRef]admin.Rollout{}
	for _, r := range rollouts {
		known[admin.ObjectRef{Namespace: r.Namespace, Name: r.Deployment}] = r
	}
	var out []string
	for _, o := range objects {
		r := known[admin.ObjectRef{Namespace: o.Namespace, Name: o.Name}]
		switch {
		case r.Object != admin.Digest(o):
			out = append(out, fmt.Sprintf("deployment %s/%s (not begun)", o.Namespace, o.Name))
		case !r.Done:
			out = append(out, strings.TrimSuffix(fmt.Sprintf("deployment %s/%s (rolling out %s", o.Namespace, o.Name, r.Message), " ")+")")
		}
	}
	return out
}

// unsettled lists pods that start or end.
func unsettled(pods []admin.Pod) []string {
	var out []string
	for _, p := range pods {
		if !p.Ready || p.Phase != admin.PodRunning {
			out = append(out, fmt.Sprintf("%s/%s (%s %s)", p.Namespace, p.Name, p.Phase, p.Message))
		}
	}
	return out
}
