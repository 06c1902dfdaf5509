// Command crdgen writes the custom resource definitions of deploy/crds: those of
// Istio's kinds that Weft reads, from the file that istio.io/api publishes, and
// the Gateway API's standard channel, from its module. `make crds` runs it.
//
// It changes nothing of a schema. To Istio's it adds columns that `kubectl get`
// shows, and our labels; to the Gateway API's nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	out := flag.String("out", "deploy/crds", "folder to write to")
	flag.Parse()
	if err := run(context.Background(), *out); err != nil {
		fmt.Fprintln(os.Stderr, "crdgen: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	files, err := generate(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for name, text := range files {
		errs = append(errs, os.WriteFile(filepath.Join(out, name), text, 0o644))
	}
	return errors.Join(errs...)
}

// generate makes all files, by name.
func generate(ctx context.Context) (map[string][]byte, error) {
	istio, err := moduleDir(ctx, "istio.io/api")
	if err != nil {
		return nil, err
	}
	gwapi, err := moduleDir(ctx, "sigs.k8s.io/gateway-api")
	if err != nil {
		return nil, err
	}
	a, err := istioCRDs(istio)
	if err != nil {
		return nil, err
	}
	b, err := gatewayCRDs(gwapi)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"istio.yaml": a, "gateway-api.yaml": b}, nil
}

// moduleDir is where a module that go.mod requires is unpacked.
func moduleDir(ctx context.Context, path string) (string, error) {
	b, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		return "", fmt.Errorf("module %s: %w", path, err)
	}
	dir := strings.TrimSpace(string(b))
	if dir == "" {
		return "", fmt.Errorf("module %s: not in the module cache; run go mod download", path)
	}
	return dir, nil
}
