package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
)

// kinds maps what a user may type to the kind's name.
var kinds = map[string]string{
	"namespace": "Namespace", "ns": "Namespace",
	"serviceaccount": "ServiceAccount", "sa": "ServiceAccount",
	"service": "Service", "svc": "Service",
	"deployment": "Deployment", "deploy": "Deployment",
	"virtualservice": "VirtualService", "vs": "VirtualService",
	"destinationrule": "DestinationRule", "dr": "DestinationRule",
	"gateway": "Gateway", "gw": "Gateway",
	"serviceentry": "ServiceEntry", "se": "ServiceEntry",
	"workloadentry": "WorkloadEntry", "we": "WorkloadEntry",
	"peerauthentication": "PeerAuthentication", "pa": "PeerAuthentication",
	"authorizationpolicy": "AuthorizationPolicy", "ap": "AuthorizationPolicy",
	"secret":    "Secret",
	"configmap": "ConfigMap", "cm": "ConfigMap",
	"gatewayclass": "GatewayClass", "gc": "GatewayClass",
	"gateway.gateway.networking.k8s.io": kindK8sGateway, "gateways.gateway.networking.k8s.io": kindK8sGateway, "gtw": kindK8sGateway,
	"listenerset": "ListenerSet", "lset": "ListenerSet",
	"httproute": "HTTPRoute", "grpcroute": "GRPCRoute", "tlsroute": "TLSRoute", "tcproute": "TCPRoute",
	"referencegrant": "ReferenceGrant", "refgrant": "ReferenceGrant",
	"backendtlspolicy": "BackendTLSPolicy", "btlspolicy": "BackendTLSPolicy",
	"ingress": "Ingress", "ing": "Ingress",
	"ingressclass": "IngressClass",
}

// kindK8sGateway is the Gateway API's Gateway; the plain name is Istio's.
const kindK8sGateway = "Gateway.gateway.networking.k8s.io"

// parseKind accepts singular, plural and short names in any case; "all" is "".
func parseKind(s string) (string, error) {
	k := strings.ToLower(s)
	if k == "all" {
		return "", nil
	}
	for _, try := range []string{k, strings.TrimSuffix(k, "s"), strings.TrimSuffix(k, "es"), strings.TrimSuffix(k, "ies") + "y"} {
		if kind, ok := kinds[try]; ok {
			return kind, nil
		}
	}
	if k == "pod" || k == "pods" || k == "po" {
		return "", &exitError{exitUsage, withHint(fmt.Errorf("pods are not configuration"), "see weft ps")}
	}
	return "", &exitError{exitUsage, withHint(fmt.Errorf("kind %q is not known", s), "one of: all, "+strings.Join(kindNames(), ", "))}
}

func kindNames() []string {
	set := map[string]bool{}
	for _, k := range kinds {
		set[strings.ToLower(k)] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func (a *app) getCommand() *cobra.Command {
	var ns string
	cmd := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "List the mesh's objects, from files and from the store",
		Example: `  weft get all
  weft get virtualservices
  weft get dr reviews -o yaml
  weft get svc -n prod`,
		Args:              usageArgs(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: a.completeObjects(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.get(cmd.Context(), ns, args)
		},
	}
	a.namespaceFlag(cmd, &ns, "", "only this namespace (default all)")
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

func (a *app) objects(ctx context.Context, kind, ns, name string) ([]admin.Object, error) {
	return a.mesh().Find(ctx, client.Find{Kind: kind, Namespace: ns, Name: name})
}

func (a *app) get(ctx context.Context, ns string, args []string) error {
	kind, err := parseKind(args[0])
	if err != nil {
		return err
	}
	name := ""
	if len(args) == 2 {
		n := ""
		n, name = splitRef(args[1], ns)
		ns = n
	}
	items, err := a.objects(ctx, kind, ns, name)
	if err != nil {
		return err
	}
	if name != "" && len(items) == 0 {
		return fmt.Errorf("%s %q not found", strings.ToLower(kind), args[1])
	}
	return a.data(rawObjects(items, name != ""), func() error {
		if len(items) == 0 {
			a.printf("nothing found\n")
			return nil
		}
		t := newTable("KIND", "NAMESPACE", "NAME", "SOURCE")
		for _, o := range items {
			t.add(o.Kind, orDash(o.Namespace), o.Name, o.Source)
		}
		return t.write(a.out(), a.colors(a.env.Stdout))
	})
}

// rawObjects gives -o json|yaml the objects themselves, as kubectl does: one, or a List.
func rawObjects(items []admin.Object, single bool) any {
	if single && len(items) == 1 {
		return items[0].Raw
	}
	list := map[string]any{"apiVersion": "v1", "kind": "List"}
	raws := make([]any, 0, len(items))
	for _, o := range items {
		raws = append(raws, o.Raw)
	}
	list["items"] = raws
	return list
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) describeCommand() *cobra.Command {
	var ns string
	cmd := &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Show one object, where it came from, and what refers to it",
		Example: `  weft describe virtualservice reviews
  weft describe svc reviews -n default
  weft describe dr reviews -o json`,
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: a.completeObjects(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.describe(cmd.Context(), ns, args[0], args[1])
		},
	}
	a.namespaceFlag(cmd, &ns, "default", "namespace")
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

func (a *app) describe(ctx context.Context, ns, kindArg, ref string) error {
	kind, err := parseKind(kindArg)
	if err != nil {
		return err
	}
	if kind == "" {
		return &exitError{exitUsage, fmt.Errorf("describe needs one kind, not all")}
	}
	ns, name := splitRef(ref, ns)
	if kind == "Namespace" {
		ns = ""
	}
	items, err := a.objects(ctx, kind, ns, name)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return fmt.Errorf("%s %q not found", strings.ToLower(kind), ref)
	}
	d := description{Source: items[0].Source, Revision: items[0].Revision, Object: items[0].Raw}
	if d.MentionedBy, err = a.related(ctx, items[0]); err != nil {
		return err
	}
	return a.data(d, func() error { return a.showDescription(items[0], d) })
}

// description is one object with what is around it.
type description struct {
	Source      string            `json:"source"`
	Revision    uint64            `json:"revision"`
	MentionedBy []admin.ObjectRef `json:"mentionedBy,omitempty"`
	Object      json.RawMessage   `json:"object"`
}

func (a *app) showDescription(o admin.Object, d description) error {
	c := a.colors(a.env.Stdout)
	a.printf("%s %s\n", c.bold(o.Kind), c.bold(strings.TrimPrefix(o.Namespace+"/"+o.Name, "/")))
	a.printf("Source:    %s (revision %d)\n\n", o.Source, o.Revision)
	b, err := yaml.JSONToYAML(o.Raw)
	if err != nil {
		return err
	}
	a.printf("%s\n", b)
	if len(d.MentionedBy) > 0 {
		a.printf("Mentioned by:\n")
	}
	for _, r := range d.MentionedBy {
		a.printf("  %s %s\n", r.Kind, strings.TrimPrefix(r.Namespace+"/"+r.Name, "/"))
	}
	return nil
}

// related lists objects that mention this one's name, which is what a person
// looks for before changing it.
func (a *app) related(ctx context.Context, o admin.Object) ([]admin.ObjectRef, error) {
	all, err := a.objects(ctx, "", "", "")
	if err != nil {
		return nil, err
	}
	var out []admin.ObjectRef
	for _, x := range all {
		if x.Kind == o.Kind && x.Name == o.Name && x.Namespace == o.Namespace {
			continue
		}
		if mentions(string(x.Raw), o.Name) {
			out = append(out, admin.ObjectRef{Kind: x.Kind, Namespace: x.Namespace, Name: x.Name})
		}
	}
	return out, nil
}

// mentions finds a name as a whole JSON string or as the first label of a host name.
func mentions(raw, name string) bool {
	return strings.Contains(raw, `"`+name+`"`) || strings.Contains(raw, `"`+name+`.`)
}
