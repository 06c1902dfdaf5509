package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/api/admin"
)

// secretsMesh is a mesh with two pods and a CA's key in its state directory,
// which its user may read.
func secretsMesh(t *testing.T, uid int) (m *mesh, web admin.Pod, key string) {
	m = start(t, uid, prepare(t, uid))
	ca := filepath.Join(m.dir, "ca")
	key = filepath.Join(ca, "ca-key.pem")
	if err := errors.Join(os.Mkdir(ca, 0o700), os.WriteFile(key, []byte("the CA's key"), 0o600), os.Chown(ca, uid, uid), os.Chown(key, uid, uid)); err != nil {
		t.Fatal(err)
	}
	m.deploy("default", "web", 1, "", serveSpec)
	m.deploy("default", "other", 1, "", serveSpec)
	m.ready("other", 1)
	return m, m.ready("web", 1)[0], key
}

func TestPodsDoNotSeeTheStateDirectory(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		m, web, key := secretsMesh(t, uid)
		refused := func(what string, command ...string) {
			t.Helper()
			if out, code := m.exec("default", web.Name, command...); code == 0 || strings.Contains(out, "the CA's key") {
				t.Errorf("a program of a pod could %s: %s", what, out)
			}
		}
		refused("read the CA's key", "cat", key)
		refused("connect to the control plane's socket", "testapp", "dial", filepath.Join(m.dir, admin.SocketControl))
		refused("connect to the runtime's socket", "testapp", "dial", filepath.Join(m.dir, admin.SocketRuntime))
		refused("connect to the exec socket", "testapp", "dial", filepath.Join(m.dir, admin.SocketExec))
		refused("read its own sidecar's token", "cat", filepath.Join(m.dir, "proxies", "default_"+web.Name, "join-token"))
		refused("read from its folder's parents", "sh", "-c", "cat ../../../ca/ca-key.pem || cat ../../../control.sock.json")
		if uid != 0 { // root of the machine can
			refused("read through another process's root", "sh", "-c", "cat /proc/[0-9]*/root"+key)
			refused("take the cover away", "sh", "-c", "umount "+m.dir+" && cat "+key)
			refused("take the cover away in namespaces of its own", "unshare", "-Urm", "sh", "-c", "umount -l "+m.dir+"; cat "+key)
			refused("look below the cover", "unshare", "-Urm", "sh", "-c", "mount --bind / /mnt; cat /mnt"+key)
		}
		if out, code := m.exec("default", web.Name, "ls", "-A", m.dir); code != 0 || strings.TrimSpace(out) != "proxies\nsandbox" {
			t.Errorf("a pod sees of the state directory: %q", out)
		}
		if out, code := m.exec("default", web.Name, "ls", filepath.Join(m.dir, "sandbox")); code != 0 || strings.TrimSpace(out) != "default_"+web.Name {
			t.Errorf("a pod sees the folders of: %q", out)
		}
		if out, code := m.exec("default", web.Name, "sh", "-c", "echo kept > file && cat file && grep ndots /etc/resolv.conf"); code != 0 || !strings.HasPrefix(out, "kept\n") {
			t.Errorf("the working folder: exit code %d, %q", code, out)
		}
		if b, err := os.ReadFile(filepath.Join(m.dir, "sandbox", "default_"+web.Name, "work", "file")); string(b) != "kept\n" {
			t.Errorf("the working folder is not in the state directory: %q, %v", b, err)
		}
	})
}

func TestASidecarSeesItsOwnFilesOnly(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		m, web, _ := secretsMesh(t, uid)
		for starts := range 2 {
			want := fmt.Sprintf("files: root=true starts=%d err=<nil> secret=false folders=1\n", starts)
			m.eventually("the sidecar finds its files", func() error {
				if logs := m.logs("default", web.Name, "istio-proxy"); !strings.Contains(logs, want) {
					return fmt.Errorf("want %q in %s", want, logs)
				}
				return nil
			})
			if logs := m.logs("default", web.Name, "istio-proxy"); strings.Count(logs, "token=default/web-sa/") != starts+1 {
				t.Errorf("it has no token: %s", logs)
			}
			if err := m.client.Restart(t.Context(), admin.RestartRequest{Namespace: "default", Pod: web.Name, Container: "istio-proxy"}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestWhatAProgramLeftBehindEndsBeforeItsRestart(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		m := start(t, uid, prepare(t, uid))
		// One listens to SIGTERM, the other does not; both left the group.
		m.deploy("default", "stray", 1, "", `{"containers":[
			{"name":"app","command":["sh","-c","setsid sleep 7531 & setsid sh -c 'trap \"\" TERM; exec sleep 7532' & sleep 0.1; exit 1"]},
			{"name":"steady","command":["sh","-c","setsid sleep 7533 & exec sleep 1000"]}]}`)
		most := map[string]int{}
		var other string
		m.eventually("three restarts", func() error {
			seen := map[string]int{}
			for _, pid := range descendants(m.cmd.Process.Pid) {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				seen[string(b)]++
				if string(b) == "sleep\x007533\x00" {
					if me := fmt.Sprint(pid); other != "" && other != me {
						t.Errorf("the other container's process was %s and is %s", other, me)
					} else {
						other = me
					}
				}
			}
			for cmd, n := range seen {
				most[cmd] = max(most[cmd], n)
			}
			if pods := m.pods("stray"); len(pods) != 1 || pods[0].Containers[0].Restarts < 3 {
				return fmt.Errorf("%+v", pods)
			}
			return nil
		})
		for _, cmd := range []string{"sleep\x007531\x00", "sleep\x007532\x00", "sleep\x007533\x00"} {
			if most[cmd] != 1 {
				t.Errorf("%q ran %d times at once, want 1", cmd, most[cmd])
			}
		}
		if pods := m.pods("stray"); pods[0].Containers[1].Restarts != 0 {
			t.Errorf("the other container was restarted: %+v", pods[0].Containers)
		}
		if logs := m.logs("default", m.pods("stray")[0].Name, "app"); !strings.Contains(logs, "app: ended 2 processes that its program had left behind") {
			t.Errorf("the log does not say it: %s", logs)
		}
	})
}
