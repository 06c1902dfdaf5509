package podspec

import (
	"strings"
)

// Identity is what a pod is called when it runs; env refers to it.
type Identity struct {
	Name           string
	Namespace      string
	UID            string
	IP             string
	HostIP         string
	NodeName       string
	ServiceAccount string
	Labels         map[string]string
	Annotations    map[string]string
}

func (id Identity) field(path string) string {
	switch path {
	case "metadata.name":
		return id.Name
	case "metadata.namespace":
		return id.Namespace
	case "metadata.uid":
		return id.UID
	case "status.podIP":
		return id.IP
	case "status.hostIP":
		return id.HostIP
	case "spec.nodeName":
		return id.NodeName
	case "spec.serviceAccountName":
		return id.ServiceAccount
	}
	if name, key, ok := mapRef(path); ok {
		if name == "labels" {
			return id.Labels[key]
		}
		return id.Annotations[key]
	}
	return ""
}

// Resolve gives the container's command and the environment that it adds to
// base (entries KEY=VALUE; the container's win). References $(VAR) are
// replaced as Kubernetes does: in values by variables before them, in the
// command by all; $$ stands for $, and an unknown reference stays as it is.
func (c Container) Resolve(base []string, id Identity) (argv, env []string) {
	values := map[string]string{}
	order := []string{}
	set := func(k, v string) {
		if _, ok := values[k]; !ok {
			order = append(order, k)
		}
		values[k] = v
	}
	for _, kv := range base {
		if k, v, ok := strings.Cut(kv, "="); ok {
			set(k, v)
		}
	}
	for _, e := range c.Env {
		if e.Field != "" {
			set(e.Name, id.field(e.Field))
		} else {
			set(e.Name, expand(e.Value, values))
		}
	}
	for _, arg := range c.Command {
		argv = append(argv, expand(arg, values))
	}
	for _, k := range order {
		env = append(env, k+"="+values[k])
	}
	return argv, env
}

// expand replaces $(VAR).
func expand(s string, values map[string]string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteString(s[i:])
				return b.String()
			}
			if v, ok := values[s[i+2:i+end]]; ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}
