package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"weft.mesh/weft/node/netns"
)

// DefaultTimeout bounds what the plugin waits for the agent.
const DefaultTimeout = 15 * time.Second

// Versions of the CNI specification that the plugin speaks.
func Versions() version.PluginInfo {
	return version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
}

// Entry is the plugin's part of a network configuration, as the node agent writes it.
type Entry struct {
	Type              string   `json:"type"`
	Socket            string   `json:"socket"` // of the node agent, on the node
	ExcludeNamespaces []string `json:"excludeNamespaces,omitempty"`
	// AgentNamespace and AgentPrefix tell the agent's own pods: their namespace and how their names begin.
	AgentNamespace string `json:"agentNamespace"`
	AgentPrefix    string `json:"agentPrefix"`
	TimeoutSeconds int    `json:"timeoutSeconds,omitempty"` // default 15
}

// conf is what the runtime gives the plugin.
type conf struct {
	net   types.PluginConf
	entry Entry
}

// UnmarshalJSON reads both from the one object.
func (c *conf) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &c.net); err != nil {
		return err
	}
	return json.Unmarshal(b, &c.entry)
}

// args are the variables of CNI_ARGS that Kubernetes' runtimes set.
type args struct {
	types.CommonArgs
	K8S_POD_NAMESPACE types.UnmarshallableString //nolint // named as the runtime does
	K8S_POD_NAME      types.UnmarshallableString
	K8S_POD_UID       types.UnmarshallableString
}

// Functions are what the runtime calls.
func Functions() skel.CNIFuncs {
	return skel.CNIFuncs{Add: Add, Check: Check, Del: nothing, GC: nothing, Status: nothing}
}

// nothing is for what needs nothing done: the rules go with the pod's namespace, and
// whether the agent is there must not decide whether the node's network is.
func nothing(*skel.CmdArgs) error { return nil }

// Add redirects a pod's traffic, if the agent says that it has a proxy, and passes the result before it on.
func Add(a *skel.CmdArgs) error {
	c, pod, err := parse(a)
	if err != nil {
		return err
	}
	ask, err := c.capture(pod)
	if err != nil {
		return fmt.Errorf("weft-cni: pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if ask.Capture {
		if err := inside(a.Netns, func(ns *netns.Handle) error { return Program(ns, ask) }); err != nil {
			return fmt.Errorf("weft-cni: pod %s/%s: redirect its traffic to its proxy: %w", pod.Namespace, pod.Name, err)
		}
	}
	return types.PrintResult(c.net.PrevResult, c.net.CNIVersion)
}

// Check looks whether the rules are still there.
func Check(a *skel.CmdArgs) error {
	c, pod, err := parse(a)
	if err != nil {
		return err
	}
	ask, err := c.capture(pod)
	if err == nil && ask.Capture {
		err = inside(a.Netns, check)
	}
	if err != nil {
		return fmt.Errorf("weft-cni: pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// parse reads what the runtime gave. A result of a plugin before is required: this one only adds to a network.
func parse(a *skel.CmdArgs) (*conf, Pod, error) {
	c := &conf{}
	if err := json.Unmarshal(a.StdinData, c); err != nil {
		return nil, Pod{}, fmt.Errorf("weft-cni: network configuration: %w", err)
	}
	if err := version.ParsePrevResult(&c.net); err != nil {
		return nil, Pod{}, fmt.Errorf("weft-cni: network configuration: prevResult: %w", err)
	}
	switch {
	case c.net.PrevResult == nil:
		return nil, Pod{}, errors.New("weft-cni: network configuration: no prevResult: the plugin must come after the one that makes the pod's network, in the same list")
	case c.entry.Socket == "":
		return nil, Pod{}, errors.New("weft-cni: network configuration: no socket: the node agent writes one; is the entry made by hand?")
	}
	var v args
	v.IgnoreUnknown = true
	if err := types.LoadArgs(a.Args, &v); err != nil {
		return nil, Pod{}, fmt.Errorf("weft-cni: CNI_ARGS %q: %w", a.Args, err)
	}
	return c, Pod{string(v.K8S_POD_NAMESPACE), string(v.K8S_POD_NAME), string(v.K8S_POD_UID)}, nil
}

// capture says what is to become of a pod: the agent's word, but for those that the agent must not be needed for.
func (c *conf) capture(p Pod) (Answer, error) {
	switch {
	case p.Namespace == "" && p.Name == "":
		return Answer{Why: "it is no pod of Kubernetes"}, nil
	case slices.Contains(c.entry.ExcludeNamespaces, p.Namespace):
		return Answer{Why: "its namespace is excluded"}, nil
	case p.Namespace == c.entry.AgentNamespace && c.entry.AgentPrefix != "" && strings.HasPrefix(p.Name, c.entry.AgentPrefix):
		return Answer{Why: "it is the node agent"}, nil
	}
	limit := DefaultTimeout
	if c.entry.TimeoutSeconds > 0 {
		limit = time.Duration(c.entry.TimeoutSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return Ask(ctx, c.entry.Socket, p)
}

// inside does f with the namespace at path.
func inside(path string, f func(*netns.Handle) error) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return f(ns)
}
