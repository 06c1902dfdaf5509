package inject

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Programs of the image weft/proxy.
const (
	programProxy = "/usr/local/bin/weft-proxy"
	programNode  = "/usr/local/bin/weft-node"
)

const (
	readyPort   = 15021
	metricsPort = 15090
	stateDir    = "/etc/istio/proxy" // a volume in memory: what a restarted container goes on with while the control plane is away
	tokenLife   = 43200              // seconds, Istio's
)

// overlay is what a built-in template adds to the pod.
func (r *request) overlay() (*corev1.Pod, error) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: canonicalLabels(r.pod, r.owner.Name), Annotations: map[string]string{annRevision: r.c.revision()}}}
	if !r.gateway && r.pod.Labels["security.istio.io/tlsMode"] == "" {
		p.Labels["security.istio.io/tlsMode"] = "istio"
	}
	if n := r.c.Global.Network; n != "" && r.pod.Labels["topology.istio.io/network"] == "" {
		p.Labels["topology.istio.io/network"] = n
	}
	for k, v := range r.c.InjectedAnnotations {
		p.Annotations[k] = v
	}
	r.defaultContainer(p)
	r.stopDelay(p)
	resources, err := r.resources()
	if err != nil {
		return nil, err
	}
	proxy := r.proxyContainer(resources)
	if r.native {
		always := corev1.ContainerRestartPolicyAlways
		proxy.RestartPolicy = &always
		p.Spec.InitContainers = append(p.Spec.InitContainers, proxy)
	} else {
		p.Spec.Containers = append(p.Spec.Containers, proxy)
	}
	if !r.gateway {
		p.Spec.InitContainers = append([]corev1.Container{r.captureContainer(resources, p.Annotations)}, p.Spec.InitContainers...)
	}
	p.Spec.Volumes = r.volumes()
	users, err := userVolumes(r.pod.Annotations[annVolume])
	if err != nil {
		return nil, err
	}
	p.Spec.Volumes = append(p.Spec.Volumes, users...)
	for _, name := range r.c.Global.ImagePullSecrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return p, nil
}

// defaultContainer keeps kubectl exec and logs at the application.
func (r *request) defaultContainer(p *corev1.Pod) {
	for _, c := range r.pod.Spec.Containers {
		if c.Name == ContainerProxy {
			continue
		}
		for _, k := range []string{"kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"} {
			if _, ok := r.pod.Annotations[k]; !ok {
				p.Annotations[k] = c.Name
			}
		}
		return
	}
}

func (r *request) proxyContainer(res corev1.ResourceRequirements) corev1.Container {
	role := "sidecar"
	if r.gateway {
		role = "gateway"
	}
	c := corev1.Container{
		Name: ContainerProxy, Image: r.image(), ImagePullPolicy: r.c.Global.ImagePullPolicy, Resources: res,
		Args:            []string{role, "--domain", or(r.c.Domain, "cluster.local"), "--state-dir", stateDir, "--log-level", or(r.pod.Annotations[annLogLevel], r.c.Proxy.LogLevel)},
		Ports:           []corev1.ContainerPort{{Name: "http-envoy-prom", ContainerPort: metricsPort, Protocol: corev1.ProtocolTCP}},
		Env:             r.environment(),
		SecurityContext: restricted(proxyID),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "istiod-ca-cert", MountPath: "/var/run/secrets/istio"}, {Name: "istio-envoy", MountPath: stateDir},
			{Name: "istio-token", MountPath: "/var/run/secrets/tokens"}, {Name: "istio-podinfo", MountPath: "/etc/istio/pod"},
		},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler: ready(), InitialDelaySeconds: r.seconds(annReadyDelay, 0), PeriodSeconds: r.seconds(annReadyPeriod, 15),
			FailureThreshold: r.seconds(annReadyFailures, 4), TimeoutSeconds: 3,
		},
		StartupProbe: &corev1.Probe{ProbeHandler: ready(), PeriodSeconds: 1, FailureThreshold: 600, TimeoutSeconds: 3},
	}
	switch {
	case r.native:
		// The application ends first and nothing calls out any more: no reason to stay.
		c.Args = append(c.Args, "--min-drain-duration", "100ms")
		c.Lifecycle = &corev1.Lifecycle{PreStop: run(programProxy, "drain", "--status-port", strconv.Itoa(int(r.statusPort)))}
	case r.gateway:
		if stop := r.gatewayStop(); stop != nil {
			c.Lifecycle = &corev1.Lifecycle{PreStop: stop}
		}
	case r.hold:
		c.Lifecycle = &corev1.Lifecycle{PostStart: run(programProxy, "wait")}
	}
	mounts, _ := userMounts(r.pod.Annotations[annVolumeMount]) // checked before
	c.VolumeMounts = append(c.VolumeMounts, mounts...)
	return c
}

func run(command ...string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}
}

func ready() corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz/ready", Port: intstr.FromInt32(readyPort)}}
}

// restricted is a security context by the Pod Security Standard of that name, but for the user 0.
func restricted(user int64) *corev1.SecurityContext {
	no, yes, nonRoot := false, true, user != 0
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, Privileged: &no, ReadOnlyRootFilesystem: &yes, RunAsUser: &user, RunAsGroup: &user, RunAsNonRoot: &nonRoot,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// resources are the annotations' if there is one of them, else the defaults.
func (r *request) resources() (corev1.ResourceRequirements, error) {
	res := corev1.ResourceRequirements{}
	found := false
	for _, x := range []struct {
		name  string
		list  *corev1.ResourceList
		which corev1.ResourceName
	}{{annCPU, &res.Requests, corev1.ResourceCPU}, {annMemory, &res.Requests, corev1.ResourceMemory}, {annCPULimit, &res.Limits, corev1.ResourceCPU}, {annMemoryLimit, &res.Limits, corev1.ResourceMemory}} {
		v, ok := r.pod.Annotations[x.name]
		if !ok {
			continue
		}
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return res, fmt.Errorf("annotation %s: %q: %w", x.name, v, err)
		}
		if *x.list == nil {
			*x.list = corev1.ResourceList{}
		}
		(*x.list)[x.which], found = q, true
	}
	if !found {
		return r.c.Proxy.Resources, nil
	}
	for which, request := range res.Requests {
		if limit, ok := res.Limits[which]; ok && request.Cmp(limit) > 0 {
			return res, fmt.Errorf("annotations sidecar.istio.io/proxy*: %s: the request %s is above the limit %s", which, request.String(), limit.String())
		}
	}
	return res, nil
}

func (r *request) seconds(annotation string, def int32) int32 {
	if n, err := strconv.ParseInt(r.pod.Annotations[annotation], 10, 32); err == nil {
		return int32(n)
	}
	return def
}

// volumes are what every proxy mounts, at the places where Istio's tools look.
func volumes() []corev1.Volume {
	life := int64(tokenLife)
	field := func(path, from string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: from}}
	}
	return []corev1.Volume{
		{Name: "istio-envoy", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "istio-podinfo", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			field("labels", "metadata.labels"), field("annotations", "metadata.annotations")}}}},
		{Name: "istio-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "istio-ca", ExpirationSeconds: &life, Path: "istio-token"}}}}}},
		{Name: "istiod-ca-cert", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "istio-ca-root-cert"}}}},
	}
}

// The ClusterTrustBundle of the mesh's roots, Istio's name for it.
const trustBundleName = "istio.io:istiod-ca:root-cert"

// volumes are those of the configuration: the roots may come from the ClusterTrustBundle, under the file name that the proxy reads.
func (r *request) volumes() []corev1.Volume {
	all := volumes()
	if !r.c.Global.ClusterTrustBundle {
		return all
	}
	name := trustBundleName
	for i := range all {
		if all[i].ConfigMap != nil {
			all[i].VolumeSource = corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
				ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: &name, Path: "root-cert.pem"}}}}}
		}
	}
	return all
}
