package kubemesh

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/cli/kube"
)

func TestAProxyIsListedWhereItIsNow(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lost := now.Add(time.Minute)
	a := admin.ControlStatus{Version: "v1", Started: now, World: "a", Proxies: []admin.ProxyStatus{
		{ID: "1", Namespace: "b", Pod: "moved", Connected: now, Lost: &lost}, {ID: "2", Namespace: "a", Pod: "stays", Connected: now},
	}}
	b := admin.ControlStatus{Version: "v1", Started: now.Add(-time.Hour), World: "b", Proxies: []admin.ProxyStatus{
		{ID: "1", Namespace: "b", Pod: "moved", Connected: lost}, {ID: "3", Namespace: "a", Pod: "other", Connected: now},
	}}
	for _, all := range [][]admin.ControlStatus{{a, b}, {b, a}} {
		st := join(all)
		var got []string
		for _, p := range st.Proxies {
			s := p.Namespace + "/" + p.Pod
			if p.Lost != nil {
				s += " lost"
			}
			got = append(got, s)
		}
		if s := strings.Join(got, ", "); s != "a/other, a/stays, b/moved" || !st.Started.Equal(b.Started) {
			t.Errorf("%s, started %s", s, st.Started)
		}
	}
}

// What kubectl does on a cluster is refused with what to use instead, and does not reach for the cluster.
func TestWhatIsKubectlsIsRefused(t *testing.T) {
	m := &Mesh{Cluster: &kube.Cluster{Context: "test"}, Namespace: "weft-system"}
	c := m.Client()
	for want, do := range map[string]func() error{
		"kubectl apply -f": func() error { _, err := c.Apply(t.Context(), admin.ApplyRequest{}); return err },
		"kubectl delete":   func() error { _, err := c.Delete(t.Context(), admin.DeleteRequest{}); return err },
		"kubectl scale":    func() error { _, err := c.Scale(t.Context(), admin.ScaleRequest{}); return err },
		"kubectl rollout":  func() error { return c.Restart(t.Context(), admin.RestartRequest{}) },
		"weft uninstall":   func() error { return c.Stop(t.Context()) },
	} {
		err := do()
		e, ok := err.(*client.Error)
		if !ok || !strings.Contains(e.Error(), "this mesh runs on Kubernetes") || !strings.Contains(e.Fix, want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestHandlersAnswerAsServersDo(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-r.Context().Done()
		case "/empty":
		default:
			w.Header().Set("x", "y")
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "one ")
			_, _ = io.WriteString(w, "two")
		}
	})
	c := http.Client{Transport: handlerTransport{h}}
	resp, err := c.Get("http://x/")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusTeapot || string(b) != "one two" || resp.Header.Get("x") != "y" {
		t.Errorf("%d %q %v", resp.StatusCode, b, err)
	}
	if resp, err := c.Get("http://x/empty"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("a handler that says nothing: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/hang", nil)
	if _, err := c.Do(req); err == nil {
		t.Error("a handler that hangs is waited for longer than the context lasts")
	}
}

func TestPodsAreShownAsAtHome(t *testing.T) {
	yes, always := true, corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-5c9-abc", Namespace: "shop", Labels: map[string]string{"pod-template-hash": "5c9"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-5c9", Controller: &yes}}},
		Spec: corev1.PodSpec{ServiceAccountName: "web", InitContainers: []corev1.Container{{Name: "istio-init"}, {Name: "istio-proxy", RestartPolicy: &always}}, Containers: []corev1.Container{{Name: "web"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1",
			Conditions:            []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "web", Ready: true, RestartCount: 2, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "istio-init", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}, {Name: "istio-proxy", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
	got := pod(p)
	if got.Deployment != "web" || !got.Sidecar || !got.Ready || got.Restarts != 2 || len(got.Containers) != 2 || got.Phase != admin.PodRunning {
		t.Errorf("%+v", got)
	}
	now := metav1.Now()
	p.DeletionTimestamp = &now
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off"}}
	if got := pod(p); got.Phase != admin.PodStopping || got.Ready || got.Message != "web: CrashLoopBackOff back-off" {
		t.Errorf("%+v", got)
	}
}
