package cli

import (
	"os"
	"path/filepath"
	"testing"
)

const kubeconfigText = `
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}, {name: there, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
`

// Which mesh a command talks to, rule by rule of docs/kubernetes/operate.md.
func TestWhichMeshACommandTalksTo(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft-cli-") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(kubeconfigText), 0o600); err != nil {
		t.Fatal(err)
	}
	running := filepath.Join(dir, "running")
	startControl(t, running)
	none := filepath.Join(dir, "none")
	for name, c := range map[string]struct {
		app      *app
		env      map[string]string
		stateDir bool // the flag was given
		want     string
	}{
		"a local mesh runs":                        {&app{stateDir: running}, map[string]string{"KUBECONFIG": file}, false, "local"},
		"none runs, and there is a kubeconfig":     {&app{stateDir: none}, map[string]string{"KUBECONFIG": file}, false, "here"},
		"none runs, and there is nothing":          {&app{stateDir: none}, nil, false, "local"},
		"--context counts more than what runs":     {&app{stateDir: running, kubeContext: "there"}, map[string]string{"KUBECONFIG": file}, false, "there"},
		"--kubeconfig counts more than what runs":  {&app{stateDir: running, kubeconfig: file}, nil, false, "here"},
		"--state-dir counts more than kubeconfigs": {&app{stateDir: none}, map[string]string{"KUBECONFIG": file}, true, "local"},
		"so does WEFT_STATE_DIR":                   {&app{stateDir: none}, map[string]string{"KUBECONFIG": file, "WEFT_STATE_DIR": none}, false, "local"},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.app
			a.env.Getenv = func(k string) string { return c.env[k] }
			if err := a.choose(t.Context(), c.stateDir); err != nil {
				t.Fatal(err)
			}
			got := "local"
			if a.onCluster != nil {
				got = a.onCluster.Cluster.Context
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	a := &app{kubeContext: "nowhere", kubeconfig: file, stateDir: none}
	a.env.Getenv = func(string) string { return "" }
	if err := a.choose(t.Context(), false); err == nil {
		t.Error("a context that is not there is taken")
	}
}
