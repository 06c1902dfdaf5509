package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/cli/tour"
)

// System is the namespace that Weft is installed in.
const System = "weft-system"

// Mesh is Weft on the cluster, as the tour and other tests see it.
type Mesh struct {
	*Cluster
	tour.Browser // its Base is the ingress, which the tour loads the page from
}

var _ tour.Mesh = (*Mesh)(nil)

// Weft is the installed command's file: the very one of the images.
func (c *Cluster) Weft() string {
	return path.Join(c.Bed.Dir, "weft-images", "programs", runtime.GOARCH, "weft")
}

// RunWeft runs the command as a user at a terminal would; what it complains is part of the error.
func (c *Cluster) RunWeft(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Weft(), args...)
	cmd.Env = c.Bed.Environment()
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("weft %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), complaints.String())
	}
	return out.String(), nil
}

// Install installs Weft unless a test before did, and leaves it: what installs and removes is a test of its own.
func Install(t testing.TB) *Mesh {
	t.Helper()
	c := New(t)
	m := &Mesh{Cluster: c}
	if _, err := c.Try(t.Context(), "", "-n", System, "get", "deployment", "weft"); err == nil {
		return m
	}
	start := time.Now()
	out, err := c.RunWeft(t.Context(), "install", "--profile", "demo", "--set", "global.tag=test")
	if err != nil {
		c.Explain(t.Context(), t, System)
		t.Fatal(err)
	}
	t.Logf("weft install: %.1f s\n%s", time.Since(start).Seconds(), out)
	return m
}

// Status is what the control plane says of itself and its proxies.
func (m *Mesh) Status(ctx context.Context) (*admin.ControlStatus, error) {
	out, err := m.Cluster.Exec(ctx, System, "deployment/weft", "discovery", "weft", "--state-dir=/var/lib/weft", "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var s admin.ControlStatus
	return &s, json.Unmarshal([]byte(out), &s)
}

// Apply implements tour.Mesh.
func (m *Mesh) Apply(ctx context.Context, files []admin.File) error {
	return m.change(ctx, files, "apply", "-f", "-")
}

// Delete implements tour.Mesh.
func (m *Mesh) Delete(ctx context.Context, files []admin.File) error {
	return m.change(ctx, files, "delete", "--ignore-not-found", "-f", "-")
}

// change runs kubectl and waits until the control plane knows and every proxy has it.
func (m *Mesh) change(ctx context.Context, files []admin.File, args ...string) error {
	before, err := m.Status(ctx)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, f := range files {
		fmt.Fprintf(&text, "---\n%s\n", f.Content)
	}
	out, err := m.Try(ctx, text.String(), args...)
	if err != nil {
		return err
	}
	return m.Settle(ctx, before.World, changedNothing(out))
}

// changedNothing reads kubectl's lines: each ends with what was done.
func changedNothing(out string) bool {
	for line := range strings.Lines(out) {
		if l := strings.TrimSpace(line); l != "" && !strings.HasSuffix(l, "unchanged") {
			return false
		}
	}
	return true
}

// Settle waits until the World is another than before (unless it needs to
// be none) and all proxies have acknowledged all of it.
func (m *Mesh) Settle(ctx context.Context, before string, maySame bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("not every proxy has it after 30 s"))
	defer cancel()
	start := time.Now()
	last := "no status yet"
	for {
		s, err := m.Status(ctx)
		switch {
		case err != nil:
			last = err.Error()
		case s.World == before && !maySame && time.Since(start) < 5*time.Second:
			last = "the control plane's World is still " + before
		default:
			if last = behind(s); last == "" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// behind names a proxy that has not all of the World.
func behind(s *admin.ControlStatus) string {
	for _, p := range s.Proxies {
		if p.Lost == nil && p.World != s.World {
			return fmt.Sprintf("%s.%s has World %s, not %s", p.Pod, p.Namespace, p.World, s.World)
		}
	}
	return ""
}

// Exec implements tour.Mesh.
func (m *Mesh) Exec(ctx context.Context, namespace, deployment string, command ...string) (*tour.Output, error) {
	out, err := m.Cluster.Exec(ctx, namespace, "deployment/"+deployment, deployment, command...)
	var failed *CommandError
	var exit *exec.ExitError
	if errors.As(err, &failed) && errors.As(failed.Err, &exit) && strings.Contains(failed.Stderr, "command terminated with exit code") {
		return &tour.Output{Stdout: out, Stderr: failed.Stderr, Code: exit.ExitCode()}, nil
	}
	if err != nil {
		return nil, err
	}
	return &tour.Output{Stdout: out}, nil
}

// Pod is what tests want to know of one.
type Pod struct {
	Name, Deployment, IP string
	Ready, Going         bool
}

// Pods lists the pods of a Deployment ("" for all of the namespace).
func (c *Cluster) Pods(ctx context.Context, namespace, deployment string) ([]Pod, error) {
	out, err := c.Try(ctx, "", "-n", namespace, "get", "pods", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []podObject }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	var pods []Pod
	for _, p := range list.Items {
		if pod := p.pod(); deployment == "" || pod.Deployment == deployment {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

type podObject struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
		OwnerReferences   []struct{ Kind, Name string }
	}
	Status struct {
		PodIP      string
		Conditions []struct{ Type, Status string }
	}
}

func (o podObject) pod() Pod {
	p := Pod{Name: o.Metadata.Name, IP: o.Status.PodIP, Going: o.Metadata.DeletionTimestamp != ""}
	for _, owner := range o.Metadata.OwnerReferences {
		if i := strings.LastIndexByte(owner.Name, '-'); owner.Kind == "ReplicaSet" && i > 0 {
			p.Deployment = owner.Name[:i]
		}
	}
	for _, cond := range o.Status.Conditions {
		p.Ready = p.Ready || cond.Type == "Ready" && cond.Status == "True"
	}
	return p
}

// Metrics implements tour.Mesh.
func (m *Mesh) Metrics(ctx context.Context, namespace, deployment string) (tour.Metrics, error) {
	pods, err := m.Pods(ctx, namespace, deployment)
	if err != nil {
		return nil, err
	}
	all := tour.Metrics{}
	for _, p := range pods {
		if p.Going {
			continue
		}
		resp, err := http.Get("http://" + p.IP + ":15020/stats/prometheus")
		if err != nil {
			return nil, err
		}
		one, err := tour.ParseMetrics(io.LimitReader(resp.Body, 16<<20))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		all.Merge(one)
	}
	return all, nil
}

// Ready implements tour.Mesh: Bookinfo's namespaces, all pods ready and none of before.
func (m *Mesh) Ready(ctx context.Context) error {
	for _, ns := range []string{"default", "legacy"} {
		out, err := m.Try(ctx, "", "-n", ns, "get", "deployments", "-o", "name")
		if err != nil {
			return err
		}
		for d := range strings.FieldsSeq(out) {
			if _, err := m.Try(ctx, "", "-n", ns, "rollout", "status", d, "--timeout=120s"); err != nil {
				return err
			}
		}
	}
	for {
		pods, err := m.Pods(ctx, "default", "")
		if err != nil {
			return err
		}
		going := false
		for _, p := range pods {
			going = going || p.Going
		}
		if !going {
			return m.Settle(ctx, "", true)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
