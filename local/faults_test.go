package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
)

// machine is what a mesh must leave as it was.
func machine(t *testing.T) string {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range links {
		fmt.Fprintln(&b, l.Name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(mounts)
	if out, err := exec.Command("nft", "list", "ruleset").Output(); err == nil {
		b.Write(out)
	}
	return b.String()
}

// descendants are the processes below pid, as the machine numbers them.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		var child, parent int
		fmt.Sscan(string(b), &child)
		_, rest, _ := strings.Cut(string(b), ") ")
		var state string
		fmt.Sscan(rest, &state, &parent)
		children[parent] = append(children[parent], child)
	}
	var out []int
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		out = append(out, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return out
}

// busy starts a mesh with two pods, one of which runs something in the
// background that has left its process group.
func busy(t *testing.T, uid int, dir string) *mesh {
	m := start(t, uid, dir)
	m.service("default", "web", 80, 9080)
	m.deploy("default", "web", 1, "", serveSpec)
	m.deploy("default", "stray", 1, "", `{"containers":[{"name":"app","command":["sh","-c","setsid sleep 1000 & exec sleep 1000"]}]}`)
	m.ready("web", 1)
	m.ready("stray", 1)
	return m
}

func TestNothingRemains(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		ends := []struct {
			name string
			end  func(m *mesh)
			code int
		}{
			{"when weft is killed", func(m *mesh) { m.cmd.Process.Kill() }, -1},
			{"when weft is interrupted", func(m *mesh) { m.cmd.Process.Signal(syscall.SIGINT) }, 0},
			{"when init is killed", func(m *mesh) { syscall.Kill(descendants(m.cmd.Process.Pid)[0], syscall.SIGKILL) }, 137},
			{"when the runtime is killed", func(m *mesh) { syscall.Kill(descendants(m.cmd.Process.Pid)[1], syscall.SIGKILL) }, 137},
		}
		dir := prepare(t, uid)
		for _, e := range ends {
			t.Run(e.name, func(t *testing.T) {
				before := machine(t)
				m := busy(t, uid, dir) // the same folder each time: leftovers must not matter
				all := descendants(m.cmd.Process.Pid)
				if len(all) < 7 {
					t.Fatalf("%d processes: want init, the runtime, two pods with sidecars and a stray", len(all))
				}
				if pid, running := Running(dir); !running || pid != m.cmd.Process.Pid {
					t.Errorf("Running says %d, %t", pid, running)
				}
				e.end(m)
				<-m.done
				if code := m.cmd.ProcessState.ExitCode(); code != e.code {
					t.Errorf("exit code %d, want %d", code, e.code)
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := AwaitEnd(ctx, dir); err != nil {
					t.Error(err)
				}
				m.eventually("every process is gone", func() error {
					for _, pid := range all {
						if err := syscall.Kill(pid, 0); err == nil {
							b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
							return fmt.Errorf("process %d: %q", pid, b)
						}
					}
					return nil
				})
				if after := machine(t); after != before {
					t.Errorf("links, mounts or rules of the machine changed:\n%s\nbefore:\n%s", after, before)
				}
			})
		}
	})
}

func TestASecondMeshInTheSameFolderIsRefused(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		dir := prepare(t, uid)
		m := start(t, uid, dir)
		second := exec.Command(filepath.Join(filepath.Dir(dir), "bin", "weft"), "mesh", dir, "127.0.0.1:0")
		second.SysProcAttr = m.cmd.SysProcAttr
		out, err := second.CombinedOutput()
		if want := fmt.Sprintf("a mesh is running already in %s (weft has process ID %d)", dir, m.cmd.Process.Pid); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("got %v, %s; want %q", err, out, want)
		}
		if _, err := m.client.Pods(t.Context()); err != nil {
			t.Errorf("the first mesh suffered: %v", err)
		}
	})
}

func TestASecondSignalKills(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		m := start(t, uid, prepare(t, uid))
		m.deploy("default", "stubborn", 1, "", `{"terminationGracePeriodSeconds":600,"containers":[{"name":"app","command":["sh","-c","trap '' TERM; while :; do sleep 1; done"]}]}`)
		m.ready("stubborn", 1)
		m.cmd.Process.Signal(syscall.SIGTERM)
		m.eventually("the drain begins", func() error {
			pods, err := m.client.Pods(t.Context())
			if err == nil && pods[0].Phase != admin.PodStopping {
				err = errors.New("not yet")
			}
			return err
		})
		began := time.Now()
		m.cmd.Process.Signal(syscall.SIGTERM)
		<-m.done
		if took := time.Since(began); took > patience { // without it it has ten
			t.Errorf("took %s after the second signal", took)
		}
	})
}

func TestALostControlPlaneChangesNothing(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		m := start(t, uid, prepare(t, uid))
		m.service("default", "web", 80, 9080)
		m.deploy("default", "web", 2, "", serveSpec)
		before := m.ready("web", 2)
		// The socket goes and open watches are cut; it comes back after a while.
		m.post("lose", admin.Object{})
		m.eventually("the control plane is back", func() error {
			_, err := m.control.Get("http://control" + admin.PathRoot)
			return err
		})
		m.eventually("names still work", func() error {
			_, err := m.get("default", before[0].Name, "http://web/")
			return err
		})
		names := func(pods []admin.Pod) (out []string) {
			for _, p := range pods {
				out = append(out, fmt.Sprint(p.Name, p.Restarts, p.IP))
			}
			return out
		}
		if after := m.ready("web", 2); !slices.Equal(names(before), names(after)) {
			t.Errorf("pods changed from %v to %v", names(before), names(after))
		}
	})
}

func TestASeparateControlPlaneThatIsKilledIsStartedAgain(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		m := start(t, uid, prepare(t, uid), "separate")
		m.service("default", "web", 80, 9080)
		m.deploy("default", "web", 1, "", serveSpec)
		before := m.ready("web", 1)[0]
		if err := m.client.Signal(t.Context(), admin.SignalRequest{Pod: admin.PodControlPlane, Signal: "KILL"}); err != nil {
			t.Fatal(err)
		}
		m.eventually("it begins again", func() error {
			if logs := m.logs("", admin.PodControlPlane, ""); strings.Count(logs, "control plane begins") != 2 || !strings.Contains(logs, "signal: killed") {
				return errors.New(logs)
			}
			return nil
		})
		m.deploy("default", "web", 2, "", serveSpec)
		for _, p := range m.ready("web", 2) {
			if p.Name == before.Name && p.IP == before.IP && p.Restarts == 0 {
				return
			}
		}
		t.Errorf("the pod from before is gone: %+v", m.pods("web"))
	})
}
