package kube

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// pageSize bounds one answer of a list.
const pageSize = 500

// Pods lists pods of a namespace ("" is all) that match a label selector.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	var out []corev1.Pod
	opts := metav1.ListOptions{LabelSelector: selector, Limit: pageSize}
	for {
		list, err := c.Dynamic.Resource(pods).Namespace(namespace).List(ctx, opts)
		if err != nil {
			return nil, c.Explain("list", "pods", err)
		}
		for i := range list.Items {
			var p corev1.Pod
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &p); err != nil {
				return nil, fmt.Errorf("pod %s: %w", list.Items[i].GetName(), err)
			}
			out = append(out, p)
		}
		if opts.Continue = list.GetContinue(); opts.Continue == "" {
			return out, nil
		}
	}
}

// Ready tells whether a pod takes requests.
func Ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

// LogOptions say which output to read.
type LogOptions struct {
	Container string // default: the first that is not the proxy
	Follow    bool
	Tail      int // last lines; negative is all
	Previous  bool
}

// Logs opens a container's output. It takes the right to get pods/log.
func (c *Cluster) Logs(ctx context.Context, namespace, pod string, o LogOptions) (io.ReadCloser, error) {
	r, err := c.raw()
	if err != nil {
		return nil, err
	}
	req := r.Get().Resource("pods").Namespace(namespace).Name(pod).SubResource("log").
		Param("container", o.Container).Param("follow", strconv.FormatBool(o.Follow)).Param("previous", strconv.FormatBool(o.Previous))
	if o.Tail >= 0 {
		req = req.Param("tailLines", strconv.Itoa(o.Tail))
	}
	body, err := req.Stream(ctx)
	return body, c.Explain("get", "pods/log of "+namespace+"/"+pod, err)
}

// Deployment is the name of the Deployment that a pod belongs to, by the name
// of its ReplicaSet; else that of its owner.
func Deployment(p *corev1.Pod) string {
	for _, o := range p.OwnerReferences {
		if o.Controller == nil || !*o.Controller {
			continue
		}
		if hash := p.Labels["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
			return strings.TrimSuffix(o.Name, "-"+hash)
		}
		return o.Name
	}
	return ""
}
