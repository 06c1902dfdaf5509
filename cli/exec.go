package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/local/client"
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
			command := args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			if len(command) == 0 {
				return &exitError{exitUsage, withHint(errors.New("no command was given"), "weft exec POD -- COMMAND")}
			}
			p, err := a.findPod(cmd.Context(), ns, args[0])
			if err != nil {
				return err
			}
			req := admin.ExecRequest{Namespace: p.ns, Pod: p.name, Command: command, Env: env, Dir: dir}
			code, err := client.New(a.stateDir).Exec(cmd.Context(), req, a.env.Stdin, a.env.Stdout, a.env.Stderr)
			if errors.Is(err, client.ErrNotRunning) {
				return a.runtime().explain(os.ErrNotExist)
			}
			if err != nil {
				return err
			}
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&ns, "namespace", "n", "default", "namespace of the pod")
	cmd.Flags().StringVar(&dir, "dir", "", "working directory of the command")
	cmd.Flags().StringArrayVarP(&env, "env", "e", nil, "KEY=VALUE added to the pod's environment; may be repeated")
	cmd.Flags().SetInterspersed(false)
	return cmd
}
