package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
)

func (a *app) deleteCommand() *cobra.Command {
	var files []string
	var ns string
	cmd := &cobra.Command{
		Use:   "delete (-f FILE|DIR|- | KIND NAME…)",
		Short: "Remove objects from the store",
		Long: `Remove objects from the store, by the files they were applied from or by name.
An object that comes from a watched file is removed by removing the file.`,
		Example: `  weft delete -f virtual-service.yaml
  weft delete virtualservice reviews ratings -n prod`,
		ValidArgsFunction: a.completeObjects(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := admin.DeleteRequest{Namespace: ns}
			switch {
			case len(files) > 0 && len(args) > 0:
				return &exitError{exitUsage, fmt.Errorf("give either -f or KIND NAME, not both")}
			case len(files) > 0:
				fs, err := a.readFiles(files)
				if err != nil {
					return err
				}
				req.Files = fs
			case len(args) >= 2:
				kind, err := parseKind(args[0])
				if err != nil {
					return err
				}
				if kind == "" {
					return &exitError{exitUsage, fmt.Errorf("delete needs one kind, not all")}
				}
				for _, name := range args[1:] {
					n, name := splitRef(name, ns)
					if kind == "Namespace" {
						n = ""
					}
					req.Refs = append(req.Refs, admin.ObjectRef{Kind: kind, Namespace: n, Name: name})
				}
			default:
				return &exitError{exitUsage, withHint(fmt.Errorf("nothing to delete was named"), "see weft delete --help")}
			}
			resp, err := a.mesh().Delete(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.applied(resp, false, "deleted")
		},
	}
	cmd.Flags().StringSliceVarP(&files, "filename", "f", nil, "file, folder or - for standard input; may be repeated")
	a.namespaceFlag(cmd, &ns, "default", "namespace of objects that name none")
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}
