package inject

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Owner is what a pod was made by, as far as its metadata tells: a Deployment rather than its ReplicaSet.
type Owner struct {
	APIVersion, Kind, Name string
}

// cronJob is the name that a CronJob gives its Jobs: its own and the time in minutes.
var cronJob = regexp.MustCompile(`^(.+)-\d{8,10}$`)

// ownerOf finds a pod's owner.
func ownerOf(p *corev1.Pod) Owner {
	c := metav1.GetControllerOf(p)
	if c == nil {
		return Owner{"v1", "Pod", or(p.Name, strings.TrimSuffix(p.GenerateName, "-"))}
	}
	switch c.Kind {
	case "ReplicaSet":
		if hash := p.Labels["pod-template-hash"]; hash != "" && strings.HasSuffix(c.Name, "-"+hash) {
			return Owner{"apps/v1", "Deployment", strings.TrimSuffix(c.Name, "-"+hash)}
		}
	case "Job":
		if m := cronJob.FindStringSubmatch(c.Name); m != nil {
			return Owner{"batch/v1", "CronJob", m[1]}
		}
	}
	return Owner{c.APIVersion, c.Kind, c.Name}
}

// reference is the owner as Istio's metadata has it.
func (o Owner) reference(namespace string) string {
	return "kubernetes://apis/" + o.APIVersion + "/namespaces/" + namespace + "/" + strings.ToLower(o.Kind) + "s/" + o.Name
}

// canonicalLabels are those that a pod lacks: Istio's names of the service it is part of.
func canonicalLabels(p *corev1.Pod, workload string) map[string]string {
	out := map[string]string{}
	add := func(label, last string, from ...string) {
		if p.Labels[label] != "" {
			return
		}
		for _, k := range from {
			if v := p.Labels[k]; v != "" {
				out[label] = v
				return
			}
		}
		out[label] = last
	}
	add("service.istio.io/canonical-name", shorten(workload), "app.kubernetes.io/name", "app")
	add("service.istio.io/canonical-revision", "latest", "app.kubernetes.io/version", "version")
	return out
}

// shorten makes a name a label's value: at most 63 characters.
func shorten(s string) string {
	if len(s) > 63 {
		s = s[:63]
	}
	return strings.TrimRight(s, "-._")
}
