package kubemesh

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/cli/kube"
)

// The sidecar's container, as Istio names it.
const proxyContainer = "istio-proxy"

func (m *Mesh) getPods(w http.ResponseWriter, r *http.Request) {
	all, err := m.Cluster.Pods(r.Context(), "", "")
	if err != nil {
		fail(w, err)
		return
	}
	list := admin.PodList{Items: []admin.Pod{}}
	for i := range all {
		list.Items = append(list.Items, pod(&all[i]))
	}
	slices.SortFunc(list.Items, func(a, b admin.Pod) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	writeJSON(w, list)
}

// pod is a cluster's pod as weft ps shows one.
func pod(p *corev1.Pod) admin.Pod {
	out := admin.Pod{
		Namespace: p.Namespace, Name: p.Name, Deployment: kube.Deployment(p), Labels: p.Labels,
		ServiceAccount: p.Spec.ServiceAccountName, IP: p.Status.PodIP, Phase: admin.PodPhase(p.Status.Phase), Ready: kube.Ready(p), Message: p.Status.Message,
	}
	if p.DeletionTimestamp != nil {
		out.Phase = admin.PodStopping
	}
	if p.Status.StartTime != nil {
		out.Started = p.Status.StartTime.Time
	}
	for _, c := range slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses) {
		native := slices.ContainsFunc(p.Spec.InitContainers, func(s corev1.Container) bool { return s.Name == c.Name && s.RestartPolicy != nil })
		if c.State.Terminated != nil && !native {
			continue // an init container that has done its work
		}
		out.Sidecar = out.Sidecar || c.Name == proxyContainer
		out.Restarts += int(c.RestartCount)
		out.Containers = append(out.Containers, admin.Container{Name: c.Name, Ready: c.Ready, Restarts: int(c.RestartCount), State: state(c.State)})
		if s := c.State.Waiting; s != nil && out.Message == "" {
			out.Message = strings.TrimSpace(c.Name + ": " + s.Reason + " " + s.Message)
		}
	}
	return out
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "Running"
	case s.Terminated != nil:
		return "Terminated"
	}
	return "Waiting"
}

// getLogs streams a container's output.
func (m *Mesh) getLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o := kube.LogOptions{Container: q.Get("container"), Follow: q.Get("follow") == "true", Tail: -1}
	if t := q.Get("tail"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			writeError(w, http.StatusBadRequest, "tail "+t+": want a number", "")
			return
		}
		o.Tail = n
	}
	if o.Container == "" {
		c, err := m.firstContainer(r, q.Get("namespace"), q.Get("pod"))
		if err != nil {
			fail(w, err)
			return
		}
		o.Container = c
	}
	body, err := m.Cluster.Logs(r.Context(), q.Get("namespace"), q.Get("pod"), o)
	if err != nil {
		fail(w, err)
		return
	}
	defer body.Close()
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(w, body) // either side ended it
}

// firstContainer is the first that is not the proxy; a gateway has no other.
func (m *Mesh) firstContainer(r *http.Request, ns, name string) (string, error) {
	all, err := m.Cluster.Pods(r.Context(), ns, "")
	if err != nil {
		return "", err
	}
	for i := range all {
		if all[i].Name != name {
			continue
		}
		for _, c := range all[i].Spec.Containers {
			if c.Name != proxyContainer {
				return c.Name, nil
			}
		}
	}
	return proxyContainer, nil
}
