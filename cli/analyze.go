package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
)

func (a *app) analyzeCommand() *cobra.Command {
	var ns string
	var cluster bool
	cmd := &cobra.Command{
		Use:   "analyze FILE|DIR|-…",
		Short: "Check files as a whole, without a mesh",
		Long: `Check files as if they were all there is: the same checks as weft apply, without
a running mesh. Exit code 1 if any is an error.`,
		Example: `  weft analyze ./manifests
  weft analyze app.yaml routes.yaml -o json
  kubectl get services,deployments,virtualservices -A -o yaml | weft analyze --kubernetes -`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := a.readFiles(args)
			if err != nil {
				return err
			}
			ds, n := check(files, ns, cluster)
			if n == 0 && len(ds) == 0 {
				return withHint(fmt.Errorf("%s: no object in there", strings.Join(args, ", ")), "is this the file you meant, and was it saved?")
			}
			err = a.data(ds, func() error {
				a.diagnostics(a.env.Stdout, ds)
				if len(ds) == 0 {
					a.printf("no problem found in %s\n", plural(len(files), "file"))
				}
				return nil
			})
			if err != nil {
				return err
			}
			if n := countErrors(ds); n > 0 {
				return &exitError{exitFailed, fmt.Errorf("%s found", plural(n, "error"))}
			}
			return nil
		},
	}
	a.namespaceFlag(cmd, &ns, "default", "namespace of objects that name none")
	cmd.Flags().BoolVar(&cluster, "kubernetes", false, "for a mesh on Kubernetes: what Deployments ask of it, and fields that its API server writes, are no concern")
	a.outputFlag(cmd)
	return cmd
}

// check decodes and checks files as one set, and counts the objects in them. With cluster it leaves out what only the local runtime minds in
// Deployments, what an API server adds to objects that are read from it, and that there are no node ports, which a cluster has.
func check(files []admin.File, ns string, cluster bool) ([]admin.Diagnostic, int) {
	opts := convert.Options{Namespace: ns, CheckDeployment: checkDeployment}
	if cluster {
		opts.CheckDeployment = nil
	}
	var all []convert.Object
	ds := []admin.Diagnostic{}
	for _, f := range files {
		objs, found := convert.Decode(f, opts)
		all, ds = append(all, objs...), append(ds, found...)
	}
	ds = append(ds, analyze.CheckAll(all, analyze.Options{Mesh: snapshot.Defaults(model.Mesh{})})...)
	if cluster {
		ds = slices.DeleteFunc(ds, func(d admin.Diagnostic) bool {
			return d.Code == convert.CodeServerField || d.Code == convert.CodeNodePort
		})
	}
	return convert.Sort(ds), len(all)
}
