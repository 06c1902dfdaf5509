package kube

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/control/kube/kubetest"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t testing.TB) (*kubetest.Server, *kubeclient.Client, *slog.Logger, *syncBuffer) {
	t.Helper()
	s := kubetest.Start(t)
	c, err := kubeclient.New(s.Config(), "weft-test")
	if err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	return s, c, slog.New(slog.NewTextHandler(log, nil)), log
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// running runs f until the test ends.
func running(t testing.TB, f func(context.Context)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

type obj = kubetest.Object

func review(user, pod string, audiences ...string) obj {
	st := obj{"authenticated": true, "audiences": audiences, "user": obj{"username": user}}
	if pod != "" {
		st["user"].(obj)["extra"] = obj{"authentication.kubernetes.io/pod-name": []string{pod}}
	}
	return st
}

func TestATokenIsReviewedOnceAndGivesAnIdentity(t *testing.T) {
	s, c, _, _ := start(t)
	s.Reviews(func(token string, audiences []string) obj {
		if len(audiences) != 1 || audiences[0] != "istio-ca" {
			t.Errorf("audiences %v", audiences)
		}
		switch token {
		case "good":
			return review("system:serviceaccount:shop:web", "web-1", "istio-ca")
		case "unbound":
			return review("system:serviceaccount:shop:web", "", "istio-ca")
		case "api":
			return review("system:serviceaccount:shop:web", "web-1", "https://kubernetes.default.svc")
		case "person":
			return review("jane", "", "istio-ca")
		}
		return obj{"authenticated": false, "error": "token has expired"}
	})
	a := NewAttestor(c, "cluster.local")
	now := time.Now()
	var mu sync.Mutex
	a.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if id, err := a.Attest(context.Background(), "good"); err != nil || id.String() != "spiffe://cluster.local/ns/shop/sa/web" {
				t.Errorf("%v, %v", id, err)
			}
		})
	}
	wg.Wait()
	for token, want := range map[string]string{"unbound": "bound to no pod", "api": "want the audience istio-ca", "person": "want a service account", "old": "token has expired"} {
		if _, err := a.Attest(context.Background(), token); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", token, err, want)
		}
	}
	// Who only asks a question needs no pod; all else is as for a workload, by the same answers.
	if id, err := a.Caller(context.Background(), "unbound"); err != nil || id.String() != "spiffe://cluster.local/ns/shop/sa/web" {
		t.Errorf("%v, %v", id, err)
	}
	for token, want := range map[string]string{"api": "want the audience istio-ca", "person": "want a service account", "old": "token has expired"} {
		if _, err := a.Caller(context.Background(), token); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s asks: %v, want %q", token, err, want)
		}
	}
	if n := len(s.Writes()); n != 5 {
		t.Errorf("%d reviews of 5 tokens", n)
	}
	mu.Lock()
	now = now.Add(keepAnswer + 1)
	mu.Unlock()
	s.Reviews(func(string, []string) obj { return obj{"authenticated": false} })
	if _, err := a.Attest(context.Background(), "good"); err == nil {
		t.Error("a token whose pod is gone counts forever")
	}
	s.Down()
	if _, err := a.Attest(context.Background(), "other"); err == nil || !strings.Contains(err.Error(), "cannot review") {
		t.Errorf("%v", err)
	}
	s.Up(t)
	if _, err := a.Attest(context.Background(), "other"); err == nil || !strings.Contains(err.Error(), "not authenticated") {
		t.Errorf("an answer that never came is kept: %v", err)
	}
}

func TestOneReplicaLeadsAndAnotherTakesOver(t *testing.T) {
	_, c, log, _ := start(t)
	var mu sync.Mutex
	leaders := map[string]bool{}
	most, total := 0, 0
	replica := func(name string) func() {
		e := &Elector{Client: c, Namespace: "weft-system", Name: "weft-leader", Identity: name, Log: log, duration: time.Minute, renew: 40 * time.Second, every: 40 * time.Millisecond} // nobody takes over because the machine is busy
		return running(t, func(ctx context.Context) {
			e.Run(ctx, func(ctx context.Context) {
				mu.Lock()
				leaders[name] = true
				total++
				most = max(most, len(leaders))
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				delete(leaders, name)
				mu.Unlock()
			})
		})
	}
	leader := func() string {
		mu.Lock()
		defer mu.Unlock()
		for n := range leaders {
			return n
		}
		return ""
	}
	stop := map[string]func(){"a": replica("a"), "b": replica("b"), "c": replica("c")}
	eventually(t, "nobody leads", func() bool { return leader() != "" })
	first := leader()
	stop[first]()
	eventually(t, "nobody took over", func() bool { l := leader(); return l != "" && l != first })
	mu.Lock()
	defer mu.Unlock()
	if most != 1 || total != 2 {
		t.Errorf("%d led at once, %d in all", most, total)
	}
}

func TestALeaderThatCannotRenewStops(t *testing.T) {
	s, c, log, _ := start(t)
	e := &Elector{Client: c, Namespace: "weft-system", Name: "weft-leader", Identity: "a", Log: log, duration: 600 * time.Millisecond, renew: 300 * time.Millisecond, every: 30 * time.Millisecond}
	began, ended := make(chan struct{}, 8), make(chan struct{}, 8)
	running(t, func(ctx context.Context) {
		e.Run(ctx, func(ctx context.Context) {
			began <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
		})
	})
	<-began
	s.Down()
	<-ended
	eventually(t, "it says that it leads", func() bool { return !e.Leading() })
	s.Up(t)
	<-began
}

func TestTheRootIsMadeOnceForAllReplicas(t *testing.T) {
	s, c, log, _ := start(t)
	var mu sync.Mutex
	roots := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m, err := (&CASecret{Client: c, Namespace: "weft-system", TrustDomain: "cluster.local", Log: log}).Load(context.Background())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			roots[string(m.Cert)] = true
		})
	}
	wg.Wait()
	if len(roots) != 1 || s.Get("v1/secrets", "weft-system", SecretOwn) == nil {
		t.Errorf("%d roots", len(roots))
	}
}

func secret(t testing.TB, name string, m ca.Material, keys ...string) obj {
	t.Helper()
	data := obj{}
	for i, b := range [][]byte{m.Key, m.Cert} {
		data[keys[i]] = base64.StdEncoding.EncodeToString(b)
	}
	return obj{"apiVersion": "v1", "kind": "Secret", "metadata": obj{"namespace": "weft-system", "name": name}, "data": data}
}

func TestAPluggedInCACountsMoreAndChangesWithoutARestart(t *testing.T) {
	s, c, log, text := start(t)
	own, plugged, next := make3(t)
	s.Put("v1/secrets", secret(t, SecretOwn, own, "ca-key.pem", "ca-cert.pem"))
	s.Put("v1/secrets", secret(t, SecretPlugged, plugged, "tls.key", "tls.crt"))
	cs := &CASecret{Client: c, Namespace: "weft-system", TrustDomain: "cluster.local", Log: log}
	m, err := cs.Load(context.Background())
	if err != nil || !bytes.Equal(m.Cert, plugged.Cert) {
		t.Fatalf("%v", err)
	}
	got := make(chan ca.Material, 4)
	running(t, func(ctx context.Context) {
		cs.Follow(ctx, m, func(m ca.Material) error { got <- m; return nil })
	})
	bad := secret(t, SecretPlugged, ca.Material{Key: own.Key, Cert: next.Cert}, "tls.key", "tls.crt")
	s.Put("v1/secrets", bad)
	eventually(t, "a bad key is not refused", func() bool { return strings.Contains(text.String(), "does not belong to the key") })
	s.Put("v1/secrets", secret(t, SecretPlugged, next, "tls.key", "tls.crt"))
	if m := <-got; !bytes.Equal(m.Cert, next.Cert) {
		t.Error("another certificate came")
	}
	s.Put("v1/secrets", bad)
	if _, err := cs.Load(context.Background()); err == nil || !strings.Contains(err.Error(), "weft-system/cacerts cannot be used") {
		t.Errorf("a start with a bad key: %v; another root would cut everybody off", err)
	}
}

func make3(t testing.TB) (a, b, c ca.Material) {
	t.Helper()
	for _, m := range []*ca.Material{&a, &b, &c} {
		var err error
		if *m, err = ca.Generate("cluster.local", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return a, b, c
}

func TestEveryNamespaceHasTheRootCertificate(t *testing.T) {
	s, c, log, _ := start(t)
	namespace := func(name, phase string) {
		s.Put("v1/namespaces", obj{"apiVersion": "v1", "kind": "Namespace", "metadata": obj{"name": name}, "status": obj{"phase": phase}})
	}
	root := func(ns string) string {
		u := s.Get("v1/configmaps", ns, RootCertName)
		if u == nil {
			return ""
		}
		v, _ := u["data"].(obj)["root-cert.pem"].(string)
		return v
	}
	for i := range 20 {
		namespace(fmt.Sprint("ns", i), "Active")
	}
	namespace("going", "Terminating")
	s.Put("v1/configmaps", obj{"apiVersion": "v1", "kind": "ConfigMap", "metadata": obj{"namespace": "ns3", "name": RootCertName}, "data": obj{"root-cert.pem": "R1", "more": "kept"}})
	var mu sync.Mutex
	roots := "R1"
	changed := make(chan struct{}, 1)
	running(t, (&RootCerts{Client: c, Log: log, Changed: changed, Roots: func() []byte { mu.Lock(); defer mu.Unlock(); return []byte(roots) }}).Run)
	all := func(want string) func() bool {
		return func() bool {
			for i := range 20 {
				if root(fmt.Sprint("ns", i)) != want {
					return false
				}
			}
			return true
		}
	}
	eventually(t, "a namespace has no root", all("R1"))
	if n := len(s.Writes()); n != 19 {
		t.Errorf("%d writes, want 19: one had it already, one is going", n)
	}
	s.Delete("v1/configmaps", "ns5", RootCertName)
	eventually(t, "a deleted one is not made again", all("R1"))
	s.Put("v1/configmaps", obj{"apiVersion": "v1", "kind": "ConfigMap", "metadata": obj{"namespace": "ns4", "name": RootCertName}, "data": obj{"root-cert.pem": "forged"}})
	eventually(t, "a forged one stays", all("R1"))
	mu.Lock()
	roots = "R2"
	mu.Unlock()
	changed <- struct{}{}
	eventually(t, "a new root does not come", all("R2"))
	if s.Get("v1/configmaps", "ns3", RootCertName)["data"].(obj)["more"] != "kept" {
		t.Error("another's key in the ConfigMap is lost")
	}
	namespace("late", "Active")
	eventually(t, "a new namespace has no root", func() bool { return root("late") == "R2" })
}

func TestAMeshConfigThatIsRefusedLeavesTheOneBefore(t *testing.T) {
	s, c, log, text := start(t)
	m := &MeshConfig{Client: c, Namespace: "weft-system", Name: "weft", Key: "mesh", Log: log}
	if text, err := m.Load(context.Background()); text != "" || err != nil {
		t.Errorf("without a ConfigMap: %q, %v", text, err)
	}
	put := func(v string) {
		s.Put("v1/configmaps", obj{"apiVersion": "v1", "kind": "ConfigMap", "metadata": obj{"namespace": "weft-system", "name": "weft"}, "data": obj{"mesh": v}})
	}
	put("one")
	first, err := m.Load(context.Background())
	if err != nil || first != "one" {
		t.Fatalf("%q, %v", first, err)
	}
	got := make(chan string, 8)
	running(t, func(ctx context.Context) {
		m.Follow(ctx, first, func(v string) error {
			if v == "bad" {
				return fmt.Errorf("mesh config: bad: not supported")
			}
			got <- v
			return nil
		})
	})
	put("bad")
	eventually(t, "nothing in the log", func() bool {
		return strings.Contains(text.String(), "weft-system/weft") && strings.Contains(text.String(), "not supported")
	})
	put("two")
	if v := <-got; v != "two" {
		t.Errorf("got %q", v)
	}
}
