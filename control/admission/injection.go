package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft.mesh/weft/control/inject"
)

// inject answers /inject and /inject/cluster/NAME/net/NAME, which say another cluster and network than the configuration's.
func (h *Handler) inject(ctx context.Context, req *admissionv1.AdmissionRequest, path string) *admissionv1.AdmissionResponse {
	began := time.Now()
	h.metrics.requests.Inc()
	defer func() { h.metrics.seconds.Observe(time.Since(began).Seconds()) }()
	fail := func(code int32, reason metav1.StatusReason, err error) *admissionv1.AdmissionResponse {
		h.metrics.failed.Inc()
		h.set.Log.Warn("injection: a pod is refused", "namespace", req.Namespace, "pod", podName(req), "cause", err)
		return denied(code, reason, "injection: "+err.Error())
	}
	if req.Kind.Kind != "Pod" || req.Kind.Group != "" || req.SubResource != "" {
		return fail(http.StatusBadRequest, metav1.StatusReasonBadRequest, fmt.Errorf("%s %s: only pods are injected", req.Kind.Kind, req.SubResource))
	}
	if req.Operation != admissionv1.Create {
		h.metrics.skipped.Inc()
		return allowed()
	}
	conf := h.set.Inject()
	if conf == nil {
		return fail(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, fmt.Errorf("its configuration is not known yet; try again"))
	}
	conf, err := forPath(conf, path)
	if err != nil {
		return fail(http.StatusBadRequest, metav1.StatusReasonBadRequest, err)
	}
	res, err := conf.Inject(req.Object.Raw, req.Namespace)
	switch {
	case err != nil:
		return fail(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err)
	case !res.Injected:
		h.metrics.skipped.Inc()
		level := slog.LevelDebug
		if len(res.Warnings) > 0 { // its author may have expected something else
			level = slog.LevelInfo
		}
		h.set.Log.Log(ctx, level, "injection: a pod is left as it is", "namespace", req.Namespace, "pod", podName(req), "why", res.Why)
		return allowed(res.Warnings...)
	}
	h.metrics.injected.Inc()
	h.set.Log.Info("injection: a pod gets a proxy", "namespace", req.Namespace, "pod", podName(req), "why", res.Why)
	out := allowed(res.Warnings...)
	if res.Patch != nil {
		kind := admissionv1.PatchTypeJSONPatch
		out.Patch, out.PatchType = res.Patch, &kind
	}
	return out
}

// forPath is the configuration that the path of the webhook asks for.
func forPath(c *inject.Config, path string) (*inject.Config, error) {
	rest := strings.Trim(strings.TrimPrefix(path, "/inject"), "/")
	if rest == "" {
		return c, nil
	}
	out := *c
	parts := strings.Split(rest, "/")
	if len(parts)%2 != 0 {
		return nil, fmt.Errorf("path %s: want /inject/cluster/NAME/net/NAME", path)
	}
	for i := 0; i < len(parts); i += 2 {
		v := strings.ReplaceAll(parts[i+1], "--slash--", "/") // Istio's way to have one in a name
		switch parts[i] {
		case "cluster":
			out.Global.ClusterName = v
		case "net":
			out.Global.Network = v
		default:
			return nil, fmt.Errorf("path %s: %q is not known: want cluster or net", path, parts[i])
		}
	}
	return &out, nil
}

// podName is for logs: a pod of a controller has none yet.
func podName(req *admissionv1.AdmissionRequest) string {
	if req.Name != "" {
		return req.Name
	}
	var p corev1.Pod
	_ = json.Unmarshal(req.Object.Raw, &p) // only for a log
	return or(p.Name, p.GenerateName)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
