// Package kubemesh answers what a local mesh's sockets answer, for a mesh on a
// Kubernetes cluster: pods and logs from the API server, status and objects from
// the control plane's pods by port-forward, diff by the API server's dry run. So
// commands do not know which of the two they talk to.
//
// Everything happens with the rights of the person's own user. It refuses what
// kubectl does on a cluster (apply, delete, scale, restart, exec), and says so.
package kubemesh

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/cli/kube"
)

// Ports that are forwarded to.
const (
	portDebug = 15014 // of the control plane
	portAdmin = 15000 // of a proxy
)

// Bounds.
const (
	maxBody   = 256 << 20        // bytes of an answer
	maxPlanes = 32               // control plane pods that are asked
	askEach   = 20 * time.Second // wait for one of them
	planes    = "app.kubernetes.io/name=weft,weft.mesh/revision,app=istiod"
)

// Mesh is a mesh on a cluster. Safe for concurrent use.
type Mesh struct {
	Cluster   *kube.Cluster
	Namespace string // of the control plane
}

// Client is a client of the mesh.
func (m *Mesh) Client() *client.Client {
	return client.NewRemote(client.Remote{
		Name:    "context " + m.Cluster.Context,
		Control: handlerTransport{m.control()}, Runtime: handlerTransport{m.runtime()},
		DialProxy: func(ctx context.Context, namespace, pod string) (net.Conn, error) {
			return m.Cluster.Dial(ctx, namespace, pod, portAdmin)
		},
	})
}

// control answers for the control plane.
func (m *Mesh) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathStatus, m.getStatus)
	mux.HandleFunc("GET "+admin.PathObjects, m.forward)
	mux.HandleFunc("POST "+admin.PathDiff, m.postDiff)
	for path, instead := range map[string]string{
		admin.PathApply: "kubectl apply -f, which the mesh's webhook checks in the same way", admin.PathDelete: "kubectl delete",
		admin.PathScale: "kubectl scale", admin.PathTokens: "pods on a cluster prove who they are by their service account's token",
	} {
		mux.HandleFunc("POST "+path, refuse(instead))
	}
	return mux
}

// runtime answers for what runs pods.
func (m *Mesh) runtime() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathPods, m.getPods)
	mux.HandleFunc("GET "+admin.PathLogs, m.getLogs)
	mux.HandleFunc("POST "+admin.PathRestart, refuse("kubectl rollout restart"))
	mux.HandleFunc("POST "+admin.PathStop, refuse("weft uninstall"))
	mux.HandleFunc("POST "+admin.PathSignal, refuse("kubectl delete pod"))
	return mux
}

func refuse(instead string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotImplemented, "this mesh runs on Kubernetes: "+strings.TrimPrefix(r.URL.Path, "/v1/")+" is not weft's there", instead)
	}
}

// Planes lists the control plane's ready pods, sorted by name.
func (m *Mesh) Planes(ctx context.Context) ([]corev1.Pod, error) {
	all, err := m.Cluster.Pods(ctx, m.Namespace, planes)
	if err != nil {
		return nil, err
	}
	ready := slices.DeleteFunc(slices.Clone(all), func(p corev1.Pod) bool { return !kube.Ready(&p) })
	if len(ready) == 0 {
		return nil, &noPlane{m, len(all)}
	}
	slices.SortFunc(ready, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return ready[:min(len(ready), maxPlanes)], nil
}

// noPlane says that nobody can be asked.
type noPlane struct {
	m    *Mesh
	pods int
}

func (e *noPlane) Error() string {
	if e.pods == 0 {
		return fmt.Sprintf("no control plane runs in namespace %s of context %q", e.m.Namespace, e.m.Cluster.Context)
	}
	return fmt.Sprintf("none of the control plane's %d pods in namespace %s of context %q is ready", e.pods, e.m.Namespace, e.m.Cluster.Context)
}

// FixText is what to do about it.
func (e *noPlane) FixText() string {
	if e.pods == 0 {
		return "weft install, or name its namespace with --mesh-namespace"
	}
	return "weft verify says why"
}

// Ask gets a page of one control plane pod.
func (m *Mesh) Ask(ctx context.Context, pod, path string, q url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askEach)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return m.Cluster.Dial(ctx, m.Namespace, pod, portDebug)
		}}}
	u := url.URL{Scheme: "http", Host: "localhost", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		if ue, ok := err.(*url.Error); ok { // its URL is made up
			err = ue.Err
		}
		return nil, fmt.Errorf("control plane %s: %w", pod, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("control plane %s: %s: %w", pod, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("control plane %s: %s: answer %d: %s", pod, path, resp.StatusCode, strings.TrimSpace(string(b[:min(len(b), 300)])))
	}
	return b, nil
}

// forward asks the first control plane pod; all know the same objects.
func (m *Mesh) forward(w http.ResponseWriter, r *http.Request) {
	ps, err := m.Planes(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	b, err := m.Ask(r.Context(), ps[0].Name, r.URL.Path, r.URL.Query())
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("content-type", "application/json")
	_, _ = w.Write(b) // a pipe
}

// Pages are what a bug report takes of each control plane pod: where they go, by path.
var Pages = map[string]string{
	"/debug/configz": "configz.json", "/debug/syncz": "syncz.json", "/debug/registryz": "registryz.json", "/debug/endpointz": "endpointz.json", "/metrics": "metrics.txt",
}

// each asks all pods at once. Answers come in their order; errs says who did not answer.
func (m *Mesh) each(ctx context.Context, ps []corev1.Pod, path string) (answers [][]byte, errs []error) {
	answers, errs = make([][]byte, len(ps)), make([]error, len(ps))
	var wg sync.WaitGroup
	for i := range ps {
		wg.Go(func() { answers[i], errs[i] = m.Ask(ctx, ps[i].Name, path, nil) })
	}
	wg.Wait()
	return answers, errs
}
