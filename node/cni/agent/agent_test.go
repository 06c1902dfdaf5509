package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/node/capture"
	"weft.mesh/weft/node/cni"
	"weft.mesh/weft/node/netns"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// injected reads what injection made of a pod.
func injected(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../../control/inject/testdata", name+".yaml"))
	check(t, err)
	p := &corev1.Pod{}
	check(t, yaml.Unmarshal(b, p))
	p.Namespace, p.UID = "shop", types.UID("uid-"+name)
	return p
}

// What injection makes of pods is judged as injection means it.
func TestDecide(t *testing.T) {
	plain := injected(t, "cni")
	plain.Annotations = nil
	host := injected(t, "cni")
	host.Spec.HostNetwork = true
	stripped := injected(t, "cni") // somebody's webhook took the check out
	stripped.Spec.InitContainers = stripped.Spec.InitContainers[1:]
	proxyless := injected(t, "cni")
	proxyless.Spec.InitContainers, proxyless.Spec.Containers = nil, proxyless.Spec.Containers[:1]
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		want cni.Answer
	}{
		{"injected for an agent", injected(t, "cni"), cni.Answer{Capture: true, Annotations: map[string]string{}}},
		{"with everything that narrows", injected(t, "cni-classic"), cni.Answer{Capture: true, Annotations: map[string]string{
			capture.AnnotationExcludeInboundPorts: "16020,22", capture.AnnotationExcludeOutboundRanges: "10.9.0.0/16", capture.AnnotationExcludeOutboundPorts: "3306",
			capture.AnnotationExcludeInterfaces: "eth1", capture.AnnotationIncludeInboundPorts: "", capture.AnnotationIncludeOutboundPorts: "9999"}}},
		{"with its names", injected(t, "cni-names"), cni.Answer{Capture: true, Annotations: map[string]string{}, Names: true}},
		{"without its check", stripped, cni.Answer{Capture: true, Annotations: map[string]string{}}},
		{"a gateway", injected(t, "cni-gateway"), cni.Answer{Why: "its proxy is no sidecar"}},
		{"redirects by itself", injected(t, "hold"), cni.Answer{Why: "its container istio-init redirects"}},
		{"not injected", plain, cni.Answer{Why: "it is not injected"}},
		{"no proxy", proxyless, cni.Answer{Why: "it has no proxy"}},
		{"host network", host, cni.Answer{Why: "it has the node's network"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, Decide(tt.pod)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// pods is an API server that answers one thing after the other, the last for good.
type pods struct {
	mu      sync.Mutex
	answers []any
	asked   int
}

func (p *pods) Get(context.Context, string, string) (*corev1.Pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.answers[min(p.asked, len(p.answers)-1)]
	p.asked++
	if err, ok := x.(error); ok {
		return nil, err
	}
	return x.(*corev1.Pod), nil
}

func TestJudge(t *testing.T) {
	gr := schema.GroupResource{Resource: "pods"}
	away := errors.New("connection refused")
	static := injected(t, "cni")
	static.Annotations[mirrorAnnotation] = "hash"
	for _, tt := range []struct {
		name    string
		answers []any
		uid     string
		want    string // of the error; empty: captured
		asked   int
	}{
		{"at once", []any{injected(t, "cni")}, "uid-cni", "", 1},
		{"a runtime that tells no UID", []any{injected(t, "cni")}, "", "", 1},
		{"a static pod", []any{static}, "hash", "", 1},
		{"after a while", []any{away, apierrors.NewNotFound(gr, "web"), injected(t, "cni")}, "uid-cni", "", 3},
		{"never", []any{away}, "uid-cni", "connection refused", attempts},
		{"not there", []any{apierrors.NewNotFound(gr, "web")}, "uid-cni", "not found", attempts},
		{"another of the same name", []any{injected(t, "cni")}, "uid-other", "the runtime means uid-other", attempts},
		{"not allowed", []any{apierrors.NewForbidden(gr, "web", errors.New("no"))}, "uid-cni", "ClusterRole weft-cni", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pods{answers: tt.answers}
				m := NewMetrics(prometheus.NewRegistry())
				j := &Judge{Pods: p, Metrics: m, Log: discard()}
				a := j.Answer(t.Context(), cni.Pod{Namespace: "shop", Name: "web", UID: tt.uid})
				if tt.want == "" && (!a.Capture || a.Error != "") || !strings.Contains(a.Error, tt.want) || tt.want != "" && a.Capture {
					t.Errorf("%+v, want an error with %q", a, tt.want)
				}
				if p.asked != tt.asked {
					t.Errorf("asked %d times, want %d", p.asked, tt.asked)
				}
			})
		})
	}
}

// surgeon remembers what was done, and fails the first times.
type surgeon struct {
	mu    sync.Mutex
	did   []string
	fails int
}

func (s *surgeon) do(what string, p *corev1.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, what+" "+p.Name)
	if s.fails > 0 {
		s.fails--
		return errors.New("no")
	}
	return nil
}

// done is what was done so far.
func (s *surgeon) done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.did)
}

func (s *surgeon) Program(_ context.Context, p *corev1.Pod, a cni.Answer) error {
	return s.do(fmt.Sprintf("program %d", len(a.Annotations)), p)
}
func (s *surgeon) Delete(_ context.Context, p *corev1.Pod) error { return s.do("delete", p) }
func (s *surgeon) Label(_ context.Context, p *corev1.Pod) error  { return s.do("label", p) }

// failed is a pod whose check ended so.
func failed(t *testing.T, name string, code, restarts int32) *corev1.Pod {
	p := injected(t, "cni")
	p.Name, p.UID, p.Status.Phase = name, types.UID(name), corev1.PodPending
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: containerValidation, RestartCount: restarts, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}},
		{Name: containerProxy},
	}
	return p
}

func count(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	check(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

func TestRepair(t *testing.T) {
	running := failed(t, "running", exitNotCaptured, 1)
	running.Status.InitContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	going := failed(t, "going", exitNotCaptured, 1)
	going.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	excluded := failed(t, "excluded", exitNotCaptured, 1)
	excluded.Namespace = "kube-system"
	ended := failed(t, "ended", exitNotCaptured, 0)
	ended.Spec.RestartPolicy, ended.Status.Phase = corev1.RestartPolicyNever, corev1.PodFailed
	other := failed(t, "other", 1, 1)
	well := injected(t, "cni")
	for _, tt := range []struct {
		name   string
		mode   Mode
		pod    *corev1.Pod
		want   []string
		result string
	}{
		{"programs", ModeRepair, failed(t, "web", exitNotCaptured, 1), []string{"program 0 web"}, "success"},
		{"deletes", ModeDelete, failed(t, "web", exitNotCaptured, 1), []string{"delete web"}, "success"},
		{"labels", ModeLabel, failed(t, "web", exitNotCaptured, 1), []string{"label web"}, "success"},
		{"nothing is to be done", ModeNone, failed(t, "web", exitNotCaptured, 1), nil, ""},
		{"a pod that fails for another reason", ModeRepair, other, nil, ""},
		{"a pod that is well", ModeRepair, well, nil, ""},
		{"a check that runs", ModeRepair, running, nil, ""},
		{"a pod that goes", ModeDelete, going, nil, ""},
		{"an excluded namespace", ModeDelete, excluded, nil, ""},
		{"a pod that will not run again", ModeRepair, ended, nil, "skip"},
		{"a pod that will not run again is deleted", ModeDelete, ended, []string{"delete ended"}, "success"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, m := &surgeon{}, NewMetrics(prometheus.NewRegistry())
				r := NewRepair(tt.mode, s, []string{"kube-system"}, m, discard())
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { r.Run(ctx); close(done) }()
				check(t, r.Replace([]any{tt.pod}, ""))
				time.Sleep(time.Minute)
				check(t, r.Update(tt.pod)) // it is told again
				time.Sleep(time.Minute)
				stop()
				<-done
				if d := cmp.Diff(tt.want, s.did); d != "" {
					t.Errorf("-want +got:\n%s", d)
				}
				if tt.result != "" && count(t, m.repaired.WithLabelValues(string(tt.mode), tt.result)) != 1 {
					t.Errorf("no %s is counted", tt.result)
				}
			})
		})
	}
}

// What fails is tried again, also if the pod does not change; what broke again is mended again.
func TestRepairTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &surgeon{fails: 2}
		r := NewRepair(ModeRepair, s, nil, NewMetrics(prometheus.NewRegistry()), discard())
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.Run(ctx); close(done) }()
		check(t, r.Add(failed(t, "web", exitNotCaptured, 1)))
		time.Sleep(10 * again)
		if len(s.done()) != 3 {
			t.Errorf("after a while: %v", s.done())
		}
		check(t, r.Update(failed(t, "web", exitNotCaptured, 2)))
		synctest.Wait()
		if len(s.done()) != 4 {
			t.Errorf("after it broke again: %v", s.done())
		}
		check(t, r.Delete(failed(t, "web", exitNotCaptured, 2)))
		check(t, r.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "x"}}))
		synctest.Wait()
		if n := len(r.snapshot()); n != 0 {
			t.Errorf("%d pods are remembered for nothing", n)
		}
		stop()
		<-done
	})
}

// space is a network namespace with an address.
func space(t *testing.T, cidr string) *netns.Handle {
	t.Helper()
	ns, err := netns.New()
	if netns.Unsupported(err) {
		t.Skipf("SKIPPED, NOT TESTED: network namespaces need CAP_SYS_ADMIN: %v", err)
	}
	check(t, err)
	t.Cleanup(func() { ns.Close() })
	ip, n, err := net.ParseCIDR(cidr)
	check(t, err)
	check(t, ns.Do(func() error {
		v := netlink.NewVeth(netlink.LinkAttrs{Name: "eth0", TxQLen: -1})
		v.PeerName = "peer0"
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(eth, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: n.Mask}})
	}))
	return ns
}

// process puts one into a /proc of a test.
func process(t *testing.T, proc, pid, cgroup, ns string) {
	t.Helper()
	dir := filepath.Join(proc, pid)
	check(t, os.MkdirAll(filepath.Join(dir, "ns"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "cgroup"), []byte(cgroup), 0o644))
	check(t, os.Symlink(ns, filepath.Join(dir, "ns", "net")))
}

// A running pod's rules are programmed where its address is, and nowhere else.
func TestProgramARunningPod(t *testing.T) {
	mine, nested, other := space(t, "10.244.1.5/24"), space(t, "172.17.0.1/16"), space(t, "10.244.1.6/24")
	at := func(ns *netns.Handle) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD()) }
	const uid = "0e5a4c3e-7a0d-4a75-9d3b-0a6a5fd1f0aa"
	proc := t.TempDir()
	process(t, proc, "1", "0::/init.scope", "/proc/thread-self/ns/net")
	process(t, proc, "40", "0::/../kubepods.slice/kubepods-pod"+strings.ReplaceAll(uid, "-", "_")+".slice/cri-a.scope", at(nested))
	process(t, proc, "41", "0::/kubepods/burstable/pod"+uid+"/a", "/gone")
	process(t, proc, "42", "0::/kubepods/burstable/pod"+uid+"/b", at(mine))
	process(t, proc, "43", "0::/kubepods/podffff/c", at(other))
	check(t, os.WriteFile(filepath.Join(proc, "uptime"), nil, 0o644))
	p := injected(t, "cni")
	p.UID, p.Status.PodIP = uid, "10.244.1.5"
	d := &Doctor{Proc: proc}
	check(t, d.Program(t.Context(), p, cni.Answer{Annotations: map[string]string{capture.AnnotationExcludeOutboundPorts: "3306"}, Names: true}))
	for ns, want := range map[*netns.Handle]bool{mine: true, nested: false, other: false} {
		got, err := capture.Present(ns, capture.TableCapture)
		if err != nil || got != want {
			t.Errorf("rules in %d: %t, %v", ns.Inode(), got, err)
		}
	}
	for _, change := range []func(){func() { p.Status.PodIP = "10.244.1.6" }, func() { p.Status.PodIP = "" }, func() { p.UID = "" }} {
		change()
		if err := d.Program(t.Context(), p, cni.Answer{}); err == nil {
			t.Errorf("pod %s with address %q was found", p.UID, p.Status.PodIP)
		}
	}
}
