package testbed

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Inside is a command that runs in a node's namespaces.
func (b *Bed) Inside(ctx context.Context, n Node, argv ...string) (*exec.Cmd, error) {
	pid, err := b.NodeProcess(n)
	if err != nil {
		return nil, err
	}
	args := append([]string{"-t", fmt.Sprint(pid), "-m", "-n", "-p", "-u", "-i", "--"}, argv...)
	return exec.CommandContext(ctx, "nsenter", args...), nil
}

// Load imports image archives into every running node.
func (b *Bed) Load(ctx context.Context, archives ...string) error {
	for _, n := range b.Nodes() {
		for _, a := range archives {
			file, err := filepath.Abs(a)
			if err != nil {
				return err
			}
			c, err := b.Inside(ctx, n, "ctr", "-a", containerdSocket, "-n", "k8s.io", "images", "import", file)
			if err != nil {
				return err
			}
			var out bytes.Buffer
			c.Stdout, c.Stderr = &out, &out
			if err := c.Run(); err != nil {
				return fmt.Errorf("%s: import %s: %w\n%s", n, a, err, out.String())
			}
		}
	}
	return nil
}
