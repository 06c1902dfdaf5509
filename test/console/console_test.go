// Package console runs the unit tests of the web console's TypeScript, so that
// they are part of `make test`. It needs node, and console/node_modules, which
// `make deps` installs as package-lock.json says.
package console

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const source = "../../console"

// tool is a program of console/node_modules.
func tool(t *testing.T, name string) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skipf("SKIPPED: node is not installed, so the console's unit tests did not run: %v", err)
	}
	path, err := filepath.Abs(filepath.Join(source, "node_modules", ".bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED: the console's packages are not installed (make deps), so its unit tests did not run: %v", err)
	}
	return path
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(t, name), args...)
	cmd.Dir, cmd.WaitDelay = source, 5*time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return out
}

func TestTheConsolesTypesFit(t *testing.T) { run(t, "tsc", "--noEmit", "-p", ".") }

func TestTheConsolesUnitTests(t *testing.T) {
	out := filepath.Join(t.TempDir(), "report.json")
	log := run(t, "vitest", "run", "--reporter=json", "--outputFile="+out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	var report struct{ NumPassedTests, NumTotalTests int }
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	if report.NumPassedTests != report.NumTotalTests || report.NumTotalTests < 30 {
		t.Errorf("%d of %d tests passed:\n%s", report.NumPassedTests, report.NumTotalTests, b)
	}
	t.Logf("%d tests", report.NumTotalTests)
}
