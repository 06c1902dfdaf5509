package migrate_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// guide is docs/kubernetes/migrate-from-istio.md: its blocks of commands, which are run as they stand there. None is run twice
// but those that the guide says again, and none may be left over.
type guide struct {
	blocks map[string][]string // by the number of the step: "0" to "5"
	walked map[string]bool     // by the block's text
	*kubetest.Cluster
	dir string // where the commands run, as a user's shell
}

func readGuide(t *testing.T, c *kubetest.Cluster) *guide {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Bed.Module, "docs/kubernetes/migrate-from-istio.md"))
	if err != nil {
		t.Fatal(err)
	}
	g := &guide{blocks: map[string][]string{}, walked: map[string]bool{}, Cluster: c, dir: t.TempDir()}
	step, block := "", ""
	for line := range strings.Lines(string(text) + "\n") {
		code, indented := strings.CutPrefix(line, "    ")
		if indented {
			block += code
			continue
		}
		if block != "" {
			g.blocks[step] = append(g.blocks[step], block)
			block = ""
		}
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			step, _, _ = strings.Cut(heading, ".")
		}
	}
	return g
}

// block is the one of a step with these words in it.
func (g *guide) block(t *testing.T, step, words string) string {
	t.Helper()
	for _, b := range g.blocks[step] {
		if strings.Contains(b, words) {
			g.walked[b] = true
			return b
		}
	}
	t.Fatalf("step %s of the guide has no commands with %q", step, words)
	return ""
}

// do runs a block, and returns what its commands printed; each has to succeed.
func (g *guide) do(t *testing.T, step, words string) string {
	t.Helper()
	out, err := g.shell(t, g.block(t, step, words))
	t.Logf("step %s:\n%s", step, out)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// shell runs commands as a user would in a terminal, who answers y.
func (g *guide) shell(t *testing.T, commands string) (string, error) {
	c := exec.CommandContext(t.Context(), "bash", "-e", "-o", "pipefail", "-c", commands)
	c.Env = append(g.Bed.Environment(), "PATH="+filepath.Dir(g.Weft())+":"+g.Bed.Bin("")+":"+os.Getenv("PATH"))
	c.Dir, c.Stdin = g.dir, strings.NewReader("y\n")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s%w:\n%s", commands, err, out.String())
	}
	return out.String(), nil
}

// complete fails the test for every block that it did not walk.
func (g *guide) complete(t *testing.T) {
	t.Helper()
	for step, blocks := range g.blocks {
		for _, b := range blocks {
			if !g.walked[b] {
				t.Errorf("step %s of the guide has commands that nothing here runs:\n%s", step, b)
			}
		}
	}
}
