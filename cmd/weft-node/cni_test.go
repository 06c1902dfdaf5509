package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/node/capture"
	"weft.mesh/weft/node/cni"
	"weft.mesh/weft/node/netns"
)

// agent answers the plugin on a socket until the test ends, and hands out what it was asked.
func agent(t *testing.T, a cni.Answer) (socket string, asked chan cni.Pod) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cni") // a socket's path is at most 108 bytes
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "agent.sock")
	asked = make(chan cni.Pod, 8)
	l, err := cni.Listen(socket)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- cni.Serve(ctx, l, func(_ context.Context, p cni.Pod) cni.Answer { asked <- p; return a })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket, asked
}

const prevResult = `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"52:54:00:00:00:05","sandbox":"/run/netns/x"}],"ips":[{"interface":0,"address":"10.244.1.5/24","gateway":"10.244.1.1"}]}`

// runtimeCall calls the plugin as a container runtime does.
func runtimeCall(t *testing.T, command string, ns *netns.Handle, config map[string]any, pod string) (stdout string, code int) {
	t.Helper()
	b, err := json.Marshal(config)
	check(t, err)
	c := exec.Command("/proc/self/exe")
	c.Env = []string{"WEFT_NODE_TEST_MAIN=1", "CNI_COMMAND=" + command, "CNI_CONTAINERID=abc", "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), ns.FD()), "CNI_ARGS=" + pod}
	c.Stdin = bytes.NewReader(b)
	var out, complaints bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaints
	err = c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("%s %s: %d %s%s", command, pod, c.ProcessState.ExitCode(), out.String(), complaints.String())
	return out.String(), c.ProcessState.ExitCode()
}

func config(socket string, more map[string]any) map[string]any {
	c := map[string]any{"cniVersion": "1.0.0", "name": "podnet", "type": "weft-cni", "socket": socket, "timeoutSeconds": 1,
		"excludeNamespaces": []string{"kube-system"}, "agentNamespace": "nodes", "agentPrefix": "weft-cni-node-", "prevResult": json.RawMessage(prevResult)}
	for k, v := range more {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

const shopPod = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=u1;K8S_POD_INFRA_CONTAINER_ID=abc"

func present(t *testing.T, ns *netns.Handle) bool {
	t.Helper()
	ok, err := capture.Present(ns, capture.TableCapture)
	check(t, err)
	return ok
}

func TestPluginCapturesAPodThatTheAgentNames(t *testing.T) {
	ns := podNS(t, "10.244.1.5/24")
	if err := validateIn(t, ns); !errors.Is(err, errNotCaptured) {
		t.Fatalf("a pod without rules: %v", err)
	}
	socket, asked := agent(t, cni.Answer{Capture: true, Annotations: map[string]string{capture.AnnotationExcludeOutboundPorts: "3306", capture.AnnotationIncludeInboundPorts: ""}})
	out, code := runtimeCall(t, "ADD", ns, config(socket, nil), shopPod)
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	if p := <-asked; p != (cni.Pod{Namespace: "shop", Name: "web-1", UID: "u1"}) {
		t.Errorf("the agent was asked about %+v", p)
	}
	var got, want any
	check(t, json.Unmarshal([]byte(out), &got))
	check(t, json.Unmarshal([]byte(prevResult), &want))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the result before was not passed on: -want +got:\n%s", d)
	}
	if r := ruleset(t, ns); !strings.Contains(r, "dport 3306 return") || !strings.Contains(r, "skuid 1337 return") {
		t.Errorf("rules:\n%s", r)
	}
	check(t, validateIn(t, ns))
	if _, code := runtimeCall(t, "CHECK", ns, config(socket, nil), shopPod); code != 0 {
		t.Errorf("CHECK: exit %d", code)
	}
	check(t, capture.Remove(ns, capture.TableCapture))
	if out, code := runtimeCall(t, "CHECK", ns, config(socket, nil), shopPod); code == 0 || !strings.Contains(out, "passes by its proxy") {
		t.Errorf("CHECK without the rules: exit %d: %s", code, out)
	}
	if _, code := runtimeCall(t, "DEL", ns, config("/nobody/there", nil), shopPod); code != 0 {
		t.Errorf("DEL without an agent: exit %d", code)
	}
}

// validateIn runs validate in ns.
func validateIn(t *testing.T, ns *netns.Handle) error {
	t.Helper()
	c := exec.Command("/proc/self/exe", "validate")
	c.Env = []string{"WEFT_NODE_TEST_MAIN=1"}
	var out []byte
	var failed error
	check(t, ns.Do(func() error { out, failed = c.CombinedOutput(); return nil }))
	t.Logf("validate: %v: %s", failed, out)
	var exit *exec.ExitError
	if errors.As(failed, &exit) && exit.ExitCode() == exitNotCaptured {
		return errNotCaptured
	}
	return failed
}

func TestPluginLeavesOthersAlone(t *testing.T) {
	ns := podNS(t, "10.244.1.5/24")
	socket, _ := agent(t, cni.Answer{Why: "it has no proxy"})
	for _, tt := range []struct{ name, socket, pod string }{
		{"a pod without a proxy", socket, shopPod},
		{"an excluded namespace, without an agent", "/nobody/there", "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns;K8S_POD_UID=u"},
		{"the agent itself, without an agent", "/nobody/there", "K8S_POD_NAMESPACE=nodes;K8S_POD_NAME=weft-cni-node-x7;K8S_POD_UID=u"},
		{"what is no pod", "/nobody/there", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out, code := runtimeCall(t, "ADD", ns, config(tt.socket, nil), tt.pod); code != 0 || !strings.Contains(out, "10.244.1.5/24") {
				t.Errorf("exit %d: %s", code, out)
			}
			if present(t, ns) {
				t.Error("it is captured")
			}
		})
	}
}

// A pod whose traffic cannot be captured does not start, and the runtime is told why.
func TestPluginFailsClosed(t *testing.T) {
	v4, none := podNS(t, "10.244.1.5/24"), podNS(t)
	yes, _ := agent(t, cni.Answer{Capture: true})
	bad, _ := agent(t, cni.Answer{Capture: true, Annotations: map[string]string{capture.AnnotationExcludeOutboundPorts: "http"}})
	unknown, _ := agent(t, cni.Answer{Error: "the API server does not answer"})
	for _, tt := range []struct {
		name string
		ns   *netns.Handle
		conf map[string]any
		want string
	}{
		{"no agent", v4, config("/nobody/there", nil), "the node agent does not answer at /nobody/there"},
		{"an agent that does not know", v4, config(unknown, nil), "the node agent says: the API server does not answer"},
		{"an annotation that cannot be honoured", v4, config(bad, nil), `annotation traffic.sidecar.istio.io/excludeOutboundPorts: \"http\"`},
		{"a pod without network", none, config(yes, nil), "no address yet"},
		{"no plugin before", v4, config(yes, map[string]any{"prevResult": nil}), "no prevResult"},
		{"an entry made by hand", v4, config("", nil), "no socket"},
		{"a version that is too new", v4, config(yes, map[string]any{"cniVersion": "9.0.0"}), "incompatible"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := runtimeCall(t, "ADD", tt.ns, tt.conf, shopPod)
			if code == 0 || !strings.Contains(out, tt.want) {
				t.Errorf("exit %d, want an error with %q: %s", code, tt.want, out)
			}
			if present(t, tt.ns) {
				t.Error("it is captured")
			}
		})
	}
}

func TestPluginTellsItsVersions(t *testing.T) {
	out, code := runtimeCall(t, "VERSION", podNS(t), config("", nil), "")
	if code != 0 || !strings.Contains(out, `"0.4.0","1.0.0"`) {
		t.Errorf("exit %d: %s", code, out)
	}
}

// An agent that is being replaced is waited for.
func TestPluginWaitsForAnAgent(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	type reply struct {
		a   cni.Answer
		err error
	}
	got := make(chan reply, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { a, err := cni.Ask(ctx, socket, cni.Pod{Name: "x"}); got <- reply{a, err} }()
	l, err := cni.Listen(socket)
	check(t, err)
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- cni.Serve(serving, l, func(context.Context, cni.Pod) cni.Answer { return cni.Answer{Why: "none"} })
	}()
	if r := <-got; r.err != nil || r.a.Why != "none" {
		t.Errorf("%+v", r)
	}
	stop()
	check(t, <-done)
}
