package podspec

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
)

// field is one place in the tree of fields that are taken. A leaf takes any
// value; a node with children takes only those.
type field map[string]field

// leaf takes everything below it.
var leaf field

const each = "[]" // the child of a list's node that stands for every item

var (
	httpGet = field{"path": leaf, "port": leaf, "host": leaf, "scheme": leaf,
		"httpHeaders": {each: {"name": leaf, "value": leaf}}}
	probeFields = field{
		"httpGet": httpGet, "tcpSocket": {"port": leaf, "host": leaf}, "exec": {"command": leaf},
		"grpc": {"port": leaf, "service": leaf}, "initialDelaySeconds": leaf, "timeoutSeconds": leaf,
		"periodSeconds": leaf, "successThreshold": leaf, "failureThreshold": leaf,
	}
	containerFields = field{
		"name": leaf, "command": leaf, "args": leaf, "workingDir": leaf,
		"image": leaf, "imagePullPolicy": leaf, "resources": leaf, // no effect; see the package comment
		"env":            {each: {"name": leaf, "value": leaf, "valueFrom": {"fieldRef": {"fieldPath": leaf, "apiVersion": leaf}}}},
		"ports":          {each: {"name": leaf, "containerPort": leaf, "protocol": leaf, "hostPort": leaf}},
		"readinessProbe": probeFields, "livenessProbe": probeFields, "startupProbe": probeFields,
	}
	podFields = field{
		"containers": {each: containerFields}, "serviceAccountName": leaf, "serviceAccount": leaf,
		"terminationGracePeriodSeconds": leaf, "restartPolicy": leaf, "dnsPolicy": leaf,
	}
	// What a Kubernetes API server adds to objects is taken, so that the
	// output of `kubectl get -o yaml` can be used.
	metaFields = field{
		"name": leaf, "namespace": leaf, "labels": leaf, "annotations": leaf,
		"uid": leaf, "resourceVersion": leaf, "generation": leaf, "creationTimestamp": leaf, "managedFields": leaf, "selfLink": leaf,
	}
	deploymentFields = field{
		"apiVersion": leaf, "kind": leaf, "status": leaf, "metadata": metaFields,
		"spec": {
			"replicas": leaf, "selector": {"matchLabels": leaf},
			"strategy": {"type": leaf, "rollingUpdate": {"maxSurge": leaf, "maxUnavailable": leaf}},
			"template": {"metadata": {"name": leaf, "labels": leaf, "annotations": leaf, "creationTimestamp": leaf}, "spec": podFields},
		},
	}
)

// hints say what to use instead of a field, by its last name.
var hints = map[string]string{
	"volumes":                      "a local process sees the machine's files: use a path in workingDir, args or env",
	"volumeMounts":                 "a local process sees the machine's files: use a path in workingDir, args or env",
	"volumeDevices":                "a local process sees the machine's files: use a path in workingDir, args or env",
	"initContainers":               "do the work in the container's command, for example sh -c 'prepare && exec serve'",
	"ephemeralContainers":          "use weft exec",
	"securityContext":              "a local process runs as the user who started weft; remove it",
	"affinity":                     "there is one machine; remove it",
	"nodeSelector":                 "there is one machine; remove it",
	"nodeName":                     "there is one machine; remove it",
	"tolerations":                  "there is one machine; remove it",
	"topologySpreadConstraints":    "there is one machine; remove it",
	"hostNetwork":                  "every local pod has a network of its own; publish ports through an ingress gateway",
	"hostPID":                      "remove it",
	"hostIPC":                      "remove it",
	"hostAliases":                  "use a ServiceEntry for names that are no services",
	"hostname":                     "the host name is the pod's name; remove it",
	"subdomain":                    "use a Service",
	"envFrom":                      "write the values into env",
	"configMapKeyRef":              "write the value into env",
	"secretKeyRef":                 "write the value into env, or read a file",
	"resourceFieldRef":             "write the value into env",
	"fileKeyRef":                   "write the value into env",
	"lifecycle":                    "handle SIGTERM in the program; its traffic has ended before the signal comes",
	"imagePullSecrets":             "no image is pulled; remove it",
	"priorityClassName":            "remove it",
	"runtimeClassName":             "remove it",
	"automountServiceAccountToken": "local pods get no Kubernetes token; remove it",
	"stdin":                        "use weft exec for interactive programs",
	"stdinOnce":                    "use weft exec for interactive programs",
	"tty":                          "use weft exec for interactive programs",
	"terminationMessagePath":       "use weft logs",
	"terminationMessagePolicy":     "use weft logs",
	"restartPolicy":                "a container of a Deployment is always restarted; remove it",
	"dnsConfig":                    "pods resolve the names of the mesh only; remove it",
	"hostIP":                       "host ports listen on 127.0.0.1; remove it",
	"matchExpressions":             "use matchLabels",
	"paused":                       "remove it; changes are rolled out when they are applied",
	"minReadySeconds":              "use a readinessProbe with a successThreshold",
	"progressDeadlineSeconds":      "remove it; see weft ps for pods that do not become ready",
	"revisionHistoryLimit":         "remove it; no old revisions are kept",
	"activeDeadlineSeconds":        "remove it",
	"shareProcessNamespace":        "local pods share the machine's processes already; remove it",
	"enableServiceLinks":           "services are found by name; remove it",
	"schedulerName":                "there is one machine; remove it",
}

// unsupported lists the fields that are set and not in the tree.
func unsupported(d *appsv1.Deployment) []Problem {
	raw, err := json.Marshal(d)
	if err != nil {
		return []Problem{{Field: "spec", Message: "cannot be read: " + err.Error()}}
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return []Problem{{Field: "spec", Message: "cannot be read: " + err.Error()}}
	}
	return refuse(nil, "", tree, deploymentFields)
}

// refuse walks v along the fields that are taken.
func refuse(out []Problem, path string, v any, allowed field) []Problem {
	if allowed == nil {
		return out
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			at := name
			if path != "" {
				at = path + "." + name
			}
			below, ok := allowed[name]
			if ok {
				out = refuse(out, at, v[name], below)
			} else if isSet(v[name]) {
				out = append(out, Problem{Field: at, Value: valueText(v[name]), Message: "is not supported by the local runtime", Hint: hint(name)})
			}
		}
	case []any:
		for i, item := range v {
			out = refuse(out, fmt.Sprintf("%s[%d]", path, i), item, allowed[each])
		}
	}
	return out
}

func hint(name string) string {
	if h, ok := hints[name]; ok {
		return h
	}
	return "remove it"
}

// isSet is false for what encoding leaves behind of a field that nobody wrote.
func isSet(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case map[string]any:
		return len(v) > 0
	case []any:
		return len(v) > 0
	case string:
		return v != ""
	}
	return true
}

func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return short(v)
	case map[string]any:
		return "{" + strings.Join(slices.Sorted(maps.Keys(v)), ", ") + "}"
	case []any:
		return fmt.Sprintf("%d items", len(v))
	}
	return short(fmt.Sprint(v))
}
