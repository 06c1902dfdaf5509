// Package e2e runs the built programs the way a user does and looks at what
// real, unmodified programs see through the mesh. It needs Linux, `make build`
// and namespaces (root, or user namespaces).
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/proxy/proxytest"
)

// patience is how long anything that has to happen may take to show: it is about that it does, on a machine however busy. What
// says how fast something must be has a bar of its own.
const patience = 2 * time.Minute

// nobody is an ordinary user's ID.
const nobody = 65534

// programs returns a folder with the built programs that every user can run.
func programs(t *testing.T) string {
	t.Helper()
	src := filepath.Join("..", "..", "bin")
	dir, err := os.MkdirTemp("", "weft-e2e-bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"weft", "weft-proxy", "samples/bookinfo"} {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			t.Fatalf("%v (run make build first)", err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(p, 0o755)
	}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// env is one place to run meshes in: programs, state, ports.
type env struct {
	t       *testing.T
	bin     string
	state   string
	ingress string
	console string
	uid     int
}

func newEnv(t *testing.T) *env { return newEnvAs(t, os.Getuid()) }

func newEnvAs(t *testing.T, uid int) *env {
	t.Helper()
	// Unix socket paths are short; t.TempDir's are long.
	state, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	if uid != os.Getuid() {
		if err := os.Chown(state, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return &env{t: t, bin: programs(t), state: state, ingress: freePort(t), console: freePort(t), uid: uid}
}

// freePort is an address of this machine that nobody uses.
func freePort(t *testing.T) string {
	return fmt.Sprintf("127.0.0.1:%d", proxytest.Port(t))
}

// command prepares a weft command line in this environment.
func (e *env) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(e.bin, "weft"), args...)
	cmd.Env = []string{"HOME=" + e.state, "PATH=" + os.Getenv("PATH"), "WEFT_STATE_DIR=" + e.state, "NO_COLOR=1"}
	cmd.Dir = "/"
	if e.uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(e.uid), Gid: uint32(e.uid)}}
	}
	return cmd
}

// result of a finished command.
type result struct {
	stdout, stderr string
	code           int
}

// weft runs a command to its end.
func (e *env) weft(args ...string) result {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := e.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		e.t.Fatalf("weft %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// must runs a command that has to succeed and returns its output.
func (e *env) must(args ...string) string {
	e.t.Helper()
	r := e.weft(args...)
	if r.code != 0 {
		e.t.Fatalf("weft %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// applyText applies YAML given as text and waits for the proxies.
func (e *env) applyText(yaml string) {
	e.t.Helper()
	f := e.file("apply.yaml", yaml)
	e.must("apply", "--wait", "-f", f)
}

// file writes a file that the environment's user can read.
func (e *env) file(name, content string) string {
	e.t.Helper()
	dir, err := os.MkdirTemp(e.bin, "files-")
	if err != nil {
		e.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		e.t.Fatal(err)
	}
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		e.t.Fatal(err)
	}
	return p
}

// mesh is a running weft up or weft demo.
type mesh struct {
	*env
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan error
}

// up starts a mesh and ends it with the test.
func (e *env) up(args ...string) *mesh {
	e.t.Helper()
	return e.start(append([]string{"up", "--ingress", e.ingress, "--console", e.console}, args...)...)
}

func (e *env) start(args ...string) *mesh {
	e.t.Helper()
	m := &mesh{env: e, cmd: e.command(context.Background(), args...), done: make(chan error, 1)}
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	if err := m.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	go func() { m.done <- m.cmd.Wait() }()
	e.t.Cleanup(m.stop)
	return m
}

// stop ends the mesh as Ctrl-C does and checks that nothing of it remains.
func (m *mesh) stop() {
	m.t.Helper()
	if m.done == nil {
		return
	}
	_ = m.cmd.Process.Signal(os.Interrupt)
	select {
	case <-m.done:
	case <-time.After(patience):
		m.t.Errorf("the mesh did not end within %s of an interrupt\n%s", patience, m.out.String())
		_ = m.cmd.Process.Kill()
		<-m.done
	}
	m.done = nil
	if m.t.Failed() {
		m.t.Logf("output of the mesh:\n%s", m.out.String())
	}
	m.leftovers()
}

// leftovers fails the test if a process of the mesh still runs.
func (m *mesh) leftovers() {
	m.t.Helper()
	if left := m.processes(m.bin); len(left) > 0 {
		m.t.Errorf("processes remain after the mesh ended: %v", left)
	}
}

// processes lists processes whose command line or program holds a text.
func (e *env) processes(text string) map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil {
			continue
		}
		line := string(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '}))
		exe, _ := os.Readlink(filepath.Join(d, "exe"))
		if strings.Contains(line, text) || strings.Contains(exe, text) {
			found[pid] = line
		}
	}
	return found
}

// eventually waits until look says yes.
func (e *env) eventually(within time.Duration, what string, look func() (string, bool)) {
	e.t.Helper()
	deadline := time.Now().Add(within)
	for {
		got, ok := look()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("%s: not within %s; last seen: %s", what, within, got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ready waits until the named Deployments of namespace default (or ns/name) have ready pods and all proxies are in sync.
func (m *mesh) ready(deployments ...string) {
	m.t.Helper()
	m.eventually(patience, "pods of "+strings.Join(deployments, ", ")+" ready", func() (string, bool) {
		select {
		case err := <-m.done:
			m.done <- err
			m.t.Fatalf("the mesh ended: %v\n%s", err, m.out.String())
		default:
		}
		r := m.weft("ps")
		if r.code != 0 {
			return r.stderr, false
		}
		for _, d := range deployments {
			ns, name, ok := strings.Cut(d, "/")
			if !ok {
				ns, name = "default", d
			}
			if !podReady(r.stdout, ns, name) {
				return r.stdout, false
			}
		}
		return "", true
	})
	m.settled()
}

// settled waits until every proxy has all of the current World, twice in a
// row: a pod that has just become ready makes a new one.
func (m *mesh) settled() {
	m.t.Helper()
	last := ""
	m.eventually(patience, "all proxies have the current World", func() (string, bool) {
		r := m.weft("status", "-o", "json")
		var st admin.ControlStatus
		if r.code != 0 || json.Unmarshal([]byte(r.stdout), &st) != nil {
			return r.stdout + r.stderr, false
		}
		for _, p := range st.Proxies {
			if p.Lost == nil && p.World != st.World {
				last = ""
				return p.ID + " has " + p.World + ", current is " + st.World, false
			}
		}
		if last != st.World {
			last = st.World
			time.Sleep(300 * time.Millisecond)
			return "a new World came", false
		}
		return "", true
	})
}

func podReady(table, ns, deployment string) bool {
	for l := range strings.Lines(table) {
		f := strings.Fields(l)
		if len(f) > 3 && f[0] == ns && strings.HasPrefix(f[1], deployment+"-") {
			a, b, _ := strings.Cut(f[2], "/")
			return a == b && f[3] == "Running"
		}
	}
	return false
}

// get loads a URL of the ingress.
func (e *env) get(path string, header ...string) (int, string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+e.ingress+path, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// exec runs a command in a pod.
func (e *env) exec(pod string, command ...string) result {
	e.t.Helper()
	return e.weft(slices.Concat([]string{"exec", pod, "--"}, command)...)
}

// metric returns the lines of a pod's metrics that hold all texts.
func (e *env) metric(pod string, texts ...string) []string {
	e.t.Helper()
	r := e.exec(pod, "bookinfo", "client", "http://127.0.0.1:15020/stats/prometheus")
	if r.code != 0 {
		e.t.Fatalf("metrics of %s: exit code %d: %s", pod, r.code, r.stderr)
	}
	var out []string
next:
	for l := range strings.Lines(r.stdout) {
		for _, x := range texts {
			if !strings.Contains(l, x) {
				continue next
			}
		}
		out = append(out, strings.TrimSpace(l))
	}
	return out
}

func requireNamespaces(t *testing.T, e *env) {
	t.Helper()
	args := []string{"--net", "--mount", "true"}
	attr := &syscall.SysProcAttr{}
	if e.uid != 0 {
		args = append([]string{"--user", "--map-root-user"}, args...)
	}
	if e.uid != os.Getuid() {
		attr.Credential = &syscall.Credential{Uid: uint32(e.uid), Gid: uint32(e.uid)}
	}
	cmd := exec.Command("unshare", args...)
	cmd.SysProcAttr = attr
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: this machine does not let uid %d make namespaces: %v: %s", e.uid, err, out)
	}
}

func requireProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("SKIPPED: %s is not installed (make deps): %v", n, err)
		}
	}
}

func describe(r result) string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}
