package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/gatewayapi"
)

// Keys of the ConfigMap that parametersRef names, as Istio's: each is a strategic merge patch of an object.
const (
	keyAccount    = "serviceAccount"
	keyService    = "service"
	keyDeployment = "deployment"
	keyAutoscaler = "horizontalPodAutoscaler"
	keyBudget     = "podDisruptionBudget"
)

// typesOf says how lists of each object are merged.
var typesOf = map[string]any{
	keyAccount: corev1.ServiceAccount{}, keyService: corev1.Service{}, keyDeployment: appsv1.Deployment{},
	keyAutoscaler: autoscalingv2.HorizontalPodAutoscaler{}, keyBudget: policyv1.PodDisruptionBudget{},
}

// parameterError is a fault in parameters, which the Gateway's status tells.
type parameterError struct{ text string }

func (e *parameterError) Error() string { return e.text }

// overlays are patches as JSON, by key.
type overlays map[string][]byte

// parameters reads the ConfigMap. problem is what is wrong with it.
func (c *Controller) parameters(ctx context.Context, d gatewayapi.Deployment) (o overlays, problem string, err error) {
	if d.Parameters == "" {
		return nil, "", nil
	}
	cm, err := c.set.Client.Dynamic.Resource(configMaps).Namespace(d.Namespace).Get(ctx, d.Parameters, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Sprintf("ConfigMap %s/%s does not exist", d.Namespace, d.Parameters), nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("configmap %s/%s: %w", d.Namespace, d.Parameters, err)
	}
	data, _, _ := unstructured.NestedStringMap(cm.Object, "data")
	o, problem = parseOverlays(data)
	if problem != "" {
		problem = fmt.Sprintf("ConfigMap %s/%s: %s", d.Namespace, d.Parameters, problem)
	}
	return o, problem, nil
}

func parseOverlays(data map[string]string) (overlays, string) {
	o := overlays{}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if typesOf[key] == nil {
			return nil, fmt.Sprintf("key %q is not known; there are %s", key, strings.Join(slices.Sorted(maps.Keys(typesOf)), ", "))
		}
		b, err := yaml.YAMLToJSON([]byte(data[key]))
		if err != nil {
			return nil, fmt.Sprintf("key %q: %v", key, err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Sprintf("key %q: want an object", key)
		}
		for _, f := range []string{"apiVersion", "kind"} {
			delete(m, f)
		}
		if meta, ok := m["metadata"].(map[string]any); ok {
			for _, f := range []string{"name", "namespace", "ownerReferences"} {
				if _, ok := meta[f]; ok {
					return nil, fmt.Sprintf("key %q: metadata.%s cannot be set", key, f)
				}
			}
		}
		if o[key], err = json.Marshal(m); err != nil {
			return nil, fmt.Sprintf("key %q: %v", key, err)
		}
	}
	return o, ""
}

// merge patches an object.
func (o overlays) merge(key string, v any) (*unstructured.Unstructured, error) {
	u, err := toUnstructured(v)
	if err != nil || o[key] == nil {
		return u, err
	}
	old, err := u.MarshalJSON()
	if err != nil {
		return nil, err
	}
	now, err := strategicpatch.StrategicMergePatch(old, o[key], typesOf[key])
	if err != nil {
		return nil, &parameterError{fmt.Sprintf("key %q: %v", key, err)}
	}
	out := &unstructured.Unstructured{}
	if err := json.Unmarshal(now, &out.Object); err != nil {
		return nil, &parameterError{fmt.Sprintf("key %q: %v", key, err)}
	}
	typed := reflect.New(reflect.TypeOf(typesOf[key]))
	if err := yaml.UnmarshalStrict(now, typed.Interface()); err != nil {
		return nil, &parameterError{fmt.Sprintf("key %q: %s", key, strings.TrimPrefix(err.Error(), "error unmarshaling JSON: "))}
	}
	// Without these it would not be found again, or serve another Gateway.
	labels := out.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	for k, v := range u.GetLabels() {
		if k == labelManaged || strings.HasPrefix(k, "gateway.networking.k8s.io/") {
			labels[k] = v
		}
	}
	out.SetLabels(labels)
	return out, nil
}

// skeleton is an autoscaler or budget before its patch.
func skeleton(key string, d gatewayapi.Deployment, meta metav1.ObjectMeta) any {
	if key == keyAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{
			TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}, ObjectMeta: meta,
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 1,
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name}},
		}
	}
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: meta,
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: selectorOf(d)}},
	}
}
