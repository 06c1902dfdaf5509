package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/control/server"
)

var update = flag.Bool("update", false, "rewrite the expected output of scripts")

// TestScripts runs the command lines of testdata/script/*.txt against a control
// plane of their own and compares what they print. A script is text: "=== file
// NAME" begins a file, "=== run" the command lines, each after "$ " and
// followed by what it prints and, if it is not 0, "[exit N]".
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runScript(t, f) })
	}
}

// script is one parsed file.
type script struct {
	head     string // up to and with "=== run"
	files    map[string]string
	commands []string
	want     string // everything after "=== run"
}

func parseScript(t *testing.T, text string) *script {
	t.Helper()
	head, run, ok := strings.Cut(text, "=== run\n")
	if !ok {
		t.Fatal("the script has no === run")
	}
	s := &script{head: head + "=== run\n", files: map[string]string{}, want: run}
	for i, part := range strings.Split(head, "=== file ") {
		if i == 0 {
			continue
		}
		name, body, _ := strings.Cut(part, "\n")
		s.files[strings.TrimSpace(name)] = body
	}
	for l := range strings.Lines(run) {
		if c, ok := strings.CutPrefix(l, "$ "); ok {
			s.commands = append(s.commands, strings.TrimSpace(c))
		}
	}
	return s
}

// watched is the file that a line "# watches: NAME" names.
func (s *script) watched(dir string) []string {
	for l := range strings.Lines(s.head) {
		if name, ok := strings.CutPrefix(l, "# watches: "); ok {
			return []string{filepath.Join(dir, strings.TrimSpace(name))}
		}
	}
	return nil
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := parseScript(t, string(text))
	dir, err := os.MkdirTemp("", "weft-cli-") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, body := range s.files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	state := filepath.Join(dir, "state")
	if !strings.Contains(s.head, "# no mesh") {
		startControl(t, state, s.watched(dir)...)
	}
	var got strings.Builder
	for _, c := range s.commands {
		out, code := runLine(t, state, c)
		fmt.Fprintf(&got, "$ %s\n%s", c, tidy(dir, out))
		if code != 0 {
			fmt.Fprintf(&got, "[exit %d]\n", code)
		}
		got.WriteString("\n")
	}
	if *update {
		if err := os.WriteFile(filepath.Join(startDir, file), []byte(s.head+got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(s.want, got.String()); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}

var startDir = func() string { d, _ := os.Getwd(); return d }()

// startControl runs a control plane on free ports.
func startControl(t *testing.T, state string, files ...string) {
	t.Helper()
	s, err := server.New(server.Settings{
		StateDir: state, Address: "127.0.0.1", CheckDeployment: checkDeployment, Files: files,
		Listen: func(network, _ string) (net.Listener, error) { return net.Listen(network, "127.0.0.1:0") },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	a := &app{stateDir: state}
	for deadline := time.Now().Add(time.Minute); !a.mesh().Reachable(t.Context()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the control plane does not answer")
		}
	}
}

// runLine runs one command line; "< file" gives standard input.
func runLine(t *testing.T, state, line string) (string, int) {
	t.Helper()
	line, input, _ := strings.Cut(line, " < ")
	if input == "" {
		input = os.DevNull
	}
	in, err := os.Open(input)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	copied := make(chan struct{})
	go func() { defer close(copied); _, _ = io.Copy(&buf, r) }()
	code := Main(t.Context(), Environ{Args: strings.Fields(line), Stdin: in, Stdout: w, Stderr: w, Getenv: func(k string) string {
		return map[string]string{"WEFT_STATE_DIR": state, "HOME": state}[k]
	}})
	w.Close()
	<-copied
	r.Close()
	return buf.String(), code
}

var (
	worldVersion = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z/\d+`)
	goVersion    = regexp.MustCompile(`go1\.[\d.]+`)
	started      = regexp.MustCompile(`"\d{4}-\d\d-\d\dT[\d:.]+Z"`)
	uptime       = regexp.MustCompile(`up \d+s`)
)

// tidy replaces what differs between runs.
func tidy(dir, s string) string {
	s = strings.ReplaceAll(s, dir, "DIR")
	s = worldVersion.ReplaceAllString(s, "WORLD")
	s = goVersion.ReplaceAllString(s, "goVERSION")
	s = started.ReplaceAllString(s, "TIME")
	s = uptime.ReplaceAllString(s, "up TIME")
	var out strings.Builder
	for l := range strings.Lines(s) {
		out.WriteString(strings.TrimRight(l, " \n") + "\n")
	}
	return out.String()
}
