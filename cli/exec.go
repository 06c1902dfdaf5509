package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
)

func (a *app) execCommand() *cobra.Command {
	var ns, dir string
	var env []string
	cmd := &cobra.Command{
		Use:   "exec POD -- COMMAND [ARG…]",
		Short: "Run a command inside a pod's network, as its containers see it",
		Example: `  weft exec sleep -- curl -s http://reviews:9080/reviews/0
  weft exec productpage-v1 -- sh`,
		Args: usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.onCluster != nil {
				return withHint(fmt.Errorf("this mesh runs on Kubernetes: exec is not weft's there"), "kubectl exec")
			}
			command, err := execArgs(cmd, args)
			if err != nil {
				return err
			}
			p, err := a.findPod(cmd.Context(), ns, args[0])
			if err != nil {
				return err
			}
			req := admin.ExecRequest{Namespace: p.ns, Pod: p.name, Command: command, Env: env, Dir: dir}
			code, err := a.mesh().Exec(cmd.Context(), req, a.env.Stdin, a.env.Stdout, a.env.Stderr)
			if err != nil {
				return err
			}
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	a.namespaceFlag(cmd, &ns, "default", "namespace of the pod")
	cmd.Flags().StringVar(&dir, "dir", "", "working directory of the command")
	cmd.Flags().StringArrayVarP(&env, "env", "e", nil, "KEY=VALUE added to the pod's environment; may be repeated")
	cmd.Flags().SetInterspersed(false)
	cmd.ValidArgsFunction = a.completePods
	return a.eitherMesh(cmd)
}

// execArgs finds the command in POD [FLAGS] [--] COMMAND [ARG…]. Flags may
// follow the pod only before a "--": else they would be the command's.
func execArgs(cmd *cobra.Command, args []string) ([]string, error) {
	command := args[1:]
	if dash := slices.Index(command, "--"); dash >= 0 && strings.HasPrefix(command[0], "-") {
		if err := cmd.ParseFlags(command[:dash]); err != nil {
			return nil, &exitError{exitUsage, withHint(err, "see weft exec --help")}
		}
		if rest := cmd.Flags().Args(); len(rest) > 0 {
			return nil, &exitError{exitUsage, withHint(fmt.Errorf("%q stands before --", rest[0]), "weft exec POD -- COMMAND")}
		}
		command = command[dash+1:]
	}
	if len(command) == 0 {
		return nil, &exitError{exitUsage, withHint(errors.New("no command was given"), "weft exec POD -- COMMAND")}
	}
	if strings.HasPrefix(command[0], "-") {
		return nil, &exitError{exitUsage, withHint(fmt.Errorf("%q is no command", command[0]), "weft exec POD [FLAG…] -- COMMAND")}
	}
	return command, nil
}
