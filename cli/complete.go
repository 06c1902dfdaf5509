package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
)

// completeTimeout is how long a shell waits for a mesh that does not answer.
const completeTimeout = 2 * time.Second

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// complete makes a completion of a list of names; without a mesh there are none.
func complete(names func(ctx context.Context, cmd *cobra.Command, args []string) []string) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		out := names(ctx, cmd, args)
		slices.Sort(out)
		return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
	}
}

// namespaceFlag adds -n, which completes the namespaces of the mesh.
func (a *app) namespaceFlag(cmd *cobra.Command, ns *string, def, usage string) {
	cmd.Flags().StringVarP(ns, "namespace", "n", def, usage)
	_ = cmd.RegisterFlagCompletionFunc("namespace", complete(func(ctx context.Context, _ *cobra.Command, _ []string) []string {
		return a.namespaces(ctx)
	}))
}

// namespaces are those that some object is in, or is.
func (a *app) namespaces(ctx context.Context) []string {
	objects, err := a.mesh().Objects(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, o := range objects {
		switch {
		case o.Namespace != "":
			out = append(out, o.Namespace)
		case o.Kind == "Namespace":
			out = append(out, o.Name)
		}
	}
	return out
}

// flagNamespace is what -n says so far.
func flagNamespace(cmd *cobra.Command) string {
	ns, _ := cmd.Flags().GetString("namespace")
	return ns
}

// completeObjects completes a kind and then up to names names of that kind (-1: any number).
func (a *app) completeObjects(names int) completion {
	return complete(func(ctx context.Context, cmd *cobra.Command, args []string) []string {
		if len(args) == 0 {
			return append(kindNames(), "all")
		}
		kind, err := parseKind(args[0])
		if err != nil || kind == "" || names >= 0 && len(args) > names {
			return nil
		}
		return a.objectNames(ctx, kind, flagNamespace(cmd), args[1:])
	})
}

// objectNames lists the names of a kind, without those that were given already.
// Where no namespace is chosen they are NAMESPACE/NAME.
func (a *app) objectNames(ctx context.Context, kind, ns string, given []string) []string {
	find := client.Find{Kind: kind, Namespace: ns}
	if kind == "Namespace" {
		find.Namespace = ""
	}
	objects, err := a.mesh().Find(ctx, find)
	if err != nil {
		return nil
	}
	var out []string
	for _, o := range objects {
		name := o.Name
		if ns == "" && o.Namespace != "" {
			name = o.Namespace + "/" + o.Name
		}
		if !slices.Contains(given, name) {
			out = append(out, name)
		}
	}
	return out
}

// completeDeployments completes one Deployment.
func (a *app) completeDeployments() completion {
	return complete(func(ctx context.Context, cmd *cobra.Command, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return a.objectNames(ctx, "Deployment", flagNamespace(cmd), nil)
	})
}

// completePods completes one pod, or the Deployment that stands for one.
func (a *app) completePods(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return complete(func(ctx context.Context, cmd *cobra.Command, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		// Those of another namespace when the word says so: NAMESPACE/…
		ns, prefix := flagNamespace(cmd), ""
		if given, _, ok := strings.Cut(word, "/"); ok {
			ns, prefix = given, given+"/"
		}
		var out []string
		for _, p := range a.podsOf(ctx, ns) {
			out = append(out, prefix+p.Name)
			if p.Deployment != "" {
				out = append(out, prefix+p.Deployment)
			}
		}
		return out
	})(cmd, args, word)
}

func (a *app) podsOf(ctx context.Context, ns string) []admin.Pod {
	pods, err := a.mesh().Pods(ctx)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(pods, func(p admin.Pod) bool { return ns != "" && p.Namespace != ns })
}

// completeContainers completes the containers of the pod that was named.
func (a *app) completeContainers() completion {
	return complete(func(ctx context.Context, cmd *cobra.Command, args []string) []string {
		if len(args) == 0 {
			return nil
		}
		p, err := a.findPod(ctx, flagNamespace(cmd), args[0])
		if err != nil {
			return nil
		}
		var out []string
		for _, pod := range a.podsOf(ctx, p.ns) {
			if pod.Name == p.name {
				for _, c := range pod.Containers {
					out = append(out, c.Name)
				}
			}
		}
		return out
	})
}
