package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
)

func TestMeshOnOneMachine(t *testing.T) {
	modes(t, func(t *testing.T, uid int) {
		m := start(t, uid, prepare(t, uid))
		m.service("default", "web", 80, 9080)
		m.deploy("default", "web", 1, "", serveSpec)
		m.deploy("default", "caller", 1, "", serveSpec)
		web, caller := m.ready("web", 1)[0], m.ready("caller", 1)[0]

		t.Run("a pod is what its Deployment says", func(t *testing.T) {
			if !web.Sidecar || web.ServiceAccount != "web-sa" || web.Phase != admin.PodRunning || !strings.HasPrefix(web.Name, "web-") {
				t.Errorf("pod: %+v", web)
			}
			if len(web.Containers) != 2 || web.Containers[1].Name != "istio-proxy" || web.Containers[0].RSSBytes == 0 {
				t.Errorf("containers: %+v", web.Containers)
			}
			m.logged(web, func(logs string) bool { return strings.Contains(logs, "ip="+web.IP+" sa=web-sa token=default/web-sa/") })
		})
		t.Run("services are found by every form of their name, through both sidecars", func(t *testing.T) {
			m.eventually("the name and the address of web are known", func() error {
				_, err := m.get("default", caller.Name, "http://web/")
				return err
			})
			for _, name := range []string{"web", "web.default", "web.default.svc", "web.default.svc.cluster.local", "WEB.default.svc.cluster.local."} {
				out, err := m.get("default", caller.Name, "http://"+name+"/")
				if err != nil {
					t.Error(err)
					continue
				}
				if !strings.HasPrefix(out, web.Name+" ") || !strings.Contains(out, "from=127.0.0.6:") {
					t.Errorf("%s answered %q: want pod %s, called by its sidecar", name, out, web.Name)
				}
			}
			m.logged(caller, func(logs string) bool { // its sidecar saw the service's address
				return strings.Contains(logs, "relay :15001 from="+caller.IP) && strings.Contains(logs, "to=10.96.0.10:80")
			})
			m.logged(web, func(logs string) bool { // its sidecar saw the pod's
				return strings.Contains(logs, "relay :15006 from="+caller.IP) && strings.Contains(logs, "to="+web.IP+":9080")
			})
		})
		t.Run("unknown names do not exist", func(t *testing.T) {
			out, err := m.get("default", caller.Name, "http://nobody/")
			if err == nil || !strings.Contains(out, "no such host") {
				t.Errorf("got %q", out)
			}
		})
		t.Run("a pod reaches itself through its service and by its address", func(t *testing.T) {
			if out, err := m.get("default", web.Name, "http://10.96.0.250:9999/"); err != nil || !strings.HasPrefix(out, web.Name) {
				t.Errorf("through its service: %q, %v", out, err)
			}
			if out, err := m.get("default", web.Name, "http://"+web.IP+":9080/"); err != nil || !strings.Contains(out, "from="+web.IP) {
				t.Errorf("by its address: %q, %v", out, err)
			}
			m.logged(web, func(logs string) bool { return strings.Contains(logs, "relay :15006 from="+web.IP+":") })
			if n := strings.Count(m.logs("default", web.Name, "istio-proxy"), "relay :15006 from="+web.IP+":"); n != 1 {
				t.Errorf("%d inbound connections of the sidecar are from its own pod, want one", n)
			}
		})
		t.Run("programs run as the user and get no secrets", func(t *testing.T) {
			out, err := m.get("default", web.Name, "http://127.0.0.1:9080/")
			if err != nil || !strings.Contains(out, fmt.Sprintf("uid=%d ", uid)) {
				t.Errorf("want user %d: %q, %v", uid, out, err)
			}
			env, err := m.get("default", web.Name, "http://127.0.0.1:9080/env")
			if err != nil || strings.Contains(env, "SECRET") || !strings.Contains(env, "WHERE="+web.IP) || !strings.Contains(env, "HOSTNAME="+web.Name) {
				t.Errorf("environment: %v\n%s", err, env)
			}
		})
		t.Run("exec gives exit codes and refuses unknown pods", func(t *testing.T) {
			if out, code := m.exec("default", "deployment/web", "sh", "-c", "hostname; exit 5"); code != 5 || strings.TrimSpace(out) != web.Name {
				t.Errorf("exit code %d, output %q", code, out)
			}
			if out, code := m.exec("default", "nobody", "true"); code == 0 || !strings.Contains(out, `no pod "nobody"`) {
				t.Errorf("unknown pod: exit code %d, %q", code, out)
			}
			if out, code := m.exec("default", web.Name, "no-such-program"); code != 127 || !strings.Contains(out, "no-such-program") {
				t.Errorf("unknown program: exit code %d, %q", code, out)
			}
		})
		t.Run("a command ends with its caller", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			done := make(chan error, 1)
			go func() {
				_, err := m.client.Exec(ctx, admin.ExecRequest{Namespace: "default", Pod: web.Name, Command: []string{"sleep", "4321"}}, null, null, null)
				done <- err
			}()
			count := func(want int) func() error {
				return func() error {
					n := 0
					for _, pid := range descendants(m.cmd.Process.Pid) {
						if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); string(b) == "sleep\x004321\x00" {
							n++
						}
					}
					if n != want {
						return fmt.Errorf("%d commands run, want %d", n, want)
					}
					return nil
				}
			}
			m.eventually("the command runs", count(1))
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("the caller sees %v", err)
			}
			m.eventually("the command has ended", count(0))
		})
		t.Run("logs are followed", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var seen output
			done := make(chan error, 1)
			go func() {
				done <- m.client.Logs(ctx, client.LogOptions{Pod: web.Name, Container: "istio-proxy", Follow: true, Tail: 1}, &seen)
			}()
			m.eventually("a new line comes", func() error {
				m.get("default", caller.Name, "http://web/")
				if strings.Count(seen.String(), "relay :15006") < 2 {
					return errors.New(seen.String())
				}
				return nil
			})
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		t.Run("a sidecar that is killed comes back", func(t *testing.T) {
			if err := m.client.Signal(t.Context(), admin.SignalRequest{Namespace: "default", Pod: "deployment/caller", Container: "istio-proxy", Signal: "KILL"}); err != nil {
				t.Fatal(err)
			}
			m.eventually("it is ready again", func() error {
				if p := m.pods("caller")[0]; p.Restarts != 1 || !p.Ready {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if err := m.client.Signal(t.Context(), admin.SignalRequest{Pod: "deployment/caller", Signal: "SIGNONE"}); err == nil || !strings.Contains(err.Error(), "SIGNONE") {
				t.Errorf("a signal that is none: %v", err)
			}
		})
		t.Run("the admin port of a sidecar can be reached from outside", func(t *testing.T) {
			resp, err := m.client.HTTP("default", web.Name).Get("http://127.0.0.1:15000/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); string(b) != "admin of "+web.Name {
				t.Errorf("got %q", b)
			}
		})
		t.Run("pods are published", func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(m.dir, admin.DirPods, "default_"+web.Name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"podIP: " + web.IP, "app: web", "security.istio.io/tlsMode: istio", "serviceAccountName: web-sa", "kind: Pod"} {
				if !strings.Contains(string(b), want) {
					t.Errorf("manifest lacks %q:\n%s", want, b)
				}
			}
		})
		t.Run("a crashed program is started again", func(t *testing.T) {
			m.get("default", web.Name, "http://127.0.0.1:9080/crash")
			m.eventually("a restart is counted", func() error {
				if p := m.pods("web")[0]; p.Restarts != 1 || !p.Ready {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			m.eventually("the log says it", func() error {
				if logs := m.logs("default", web.Name, "app"); !strings.Contains(logs, "exit code 3; starts again in 200ms") || strings.Count(logs, "serving on") != 2 {
					return errors.New(logs)
				}
				return nil
			})
		})
		t.Run("a sidecar is restarted alone", func(t *testing.T) {
			if err := m.client.Restart(t.Context(), admin.RestartRequest{Namespace: "default", Pod: web.Name, Container: "istio-proxy"}); err != nil {
				t.Fatal(err)
			}
			m.eventually("the sidecar runs again", func() error {
				p := m.pods("web")[0]
				if c := p.Containers[1]; c.Restarts != 1 || !c.Ready || p.Containers[0].Restarts != 1 {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
		})
		t.Run("a Deployment is scaled", func(t *testing.T) {
			m.deploy("default", "web", 3, "", serveSpec)
			m.ready("web", 3)
			m.deploy("default", "web", 1, "", serveSpec)
			if left := m.ready("web", 1)[0]; left.Name != web.Name {
				t.Errorf("%s is left, want the oldest, %s", left.Name, web.Name)
			}
		})
		t.Run("a changed template is rolled out without a gap", func(t *testing.T) {
			m.deploy("default", "web", 1, "", strings.Replace(serveSpec, `"v1"`, `"v2"`, 1))
			m.eventually("v2 serves", func() error {
				out, err := m.get("default", caller.Name, "http://web/")
				if err != nil {
					t.Errorf("a request was lost: %v", err)
				}
				if pods := m.pods("web"); strings.Contains(out, "version=v2") && len(pods) == 1 {
					return nil
				}
				return errors.New(out)
			})
		})
		t.Run("a pod without a sidecar reaches services too", func(t *testing.T) {
			m.deploy("default", "plain", 1, `,"sidecar.istio.io/inject":"false"`, serveSpec)
			p := m.ready("plain", 1)[0]
			if p.Sidecar || len(p.Containers) != 1 {
				t.Fatalf("pod: %+v", p)
			}
			if out, err := m.get("default", p.Name, "http://web/"); err != nil || !strings.HasPrefix(out, "web-") {
				t.Errorf("got %q, %v", out, err)
			}
		})
		t.Run("a namespace can do without sidecars", func(t *testing.T) {
			m.put("Namespace", "", "off", `{"metadata":{"labels":{"istio-injection":"disabled"}}}`)
			m.deploy("off", "quiet", 1, "", serveSpec)
			if p := m.ready("quiet", 1)[0]; p.Sidecar {
				t.Errorf("pod: %+v", p)
			}
		})
		t.Run("a gateway listens on the machine's port", func(t *testing.T) {
			m.put("Deployment", "default", "gw", `{"spec":{"selector":{"matchLabels":{"istio":"ingressgateway"}},"template":{"metadata":{
				"labels":{"istio":"ingressgateway"},"annotations":{"inject.istio.io/templates":"gateway"}},
				"spec":{"containers":[{"name":"istio-proxy","ports":[{"containerPort":80,"hostPort":8080}]}]}}}}`)
			gw := m.ready("gw", 1)[0]
			resp, err := http.Get("http://" + m.ingress + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); string(b) != "gateway "+gw.Name+" port 80" {
				t.Errorf("got %q", b)
			}
		})
		t.Run("a Deployment that cannot run here changes nothing", func(t *testing.T) {
			before := m.pods("web")[0].Name
			m.deploy("default", "web", 5, "", `{"hostNetwork":true,"containers":[{"name":"app","command":["testapp"]}]}`)
			m.eventually("the refusal is logged", func() error {
				if !strings.Contains(m.out.String(), "spec.template.spec.hostNetwork") {
					return errors.New("no message yet")
				}
				return nil
			})
			if pods := m.pods("web"); len(pods) != 1 || pods[0].Name != before {
				t.Errorf("pods: %+v", pods)
			}
		})
		t.Run("a removed Deployment ends", func(t *testing.T) {
			m.post("delete", admin.Object{Kind: "Deployment", Namespace: "default", Name: "plain"})
			m.eventually("its pods are gone", func() error {
				if p := m.pods("plain"); len(p) > 0 {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
		})
		t.Run("down ends everything", func(t *testing.T) {
			if err := m.client.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := AwaitEnd(t.Context(), m.dir); err != nil {
				t.Fatal(err)
			}
			<-m.done
			if !strings.Contains(m.out.String(), "ended\n") || m.cmd.ProcessState.ExitCode() != 0 {
				t.Errorf("exit code %d", m.cmd.ProcessState.ExitCode())
			}
			for _, name := range []string{"pods", "sandbox", "proxies", admin.SocketRuntime, admin.SocketExec} {
				if _, err := os.Stat(filepath.Join(m.dir, name)); err == nil {
					t.Errorf("%s is left in the state directory", name)
				}
			}
		})
	})
}
