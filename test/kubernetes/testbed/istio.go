package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"weft.mesh/weft/deploy/image"
)

// IstioHub is the registry that [Bed.IstioImages] names: `istioctl install --set hub=…,tag=…` with [IstioVersion] finds them.
const IstioHub = "localhost/istio"

// Istio builds, unless it is there, Istio's control plane and the agent of its sidecars, of the same version as istioctl: [Bed.Bin] of "istio",
// which is what it is called as (pilot-discovery, pilot-agent).
func (b *Bed) Istio(ctx context.Context) error {
	flags := "-s -w -X istio.io/istio/pkg/version.buildVersion=" + IstioVersion
	return b.build(ctx, program{"istio", "test/kubernetes/build/istio", "", flags, "Istio's control plane and agent " + IstioVersion + "; after istioctl 3 minutes of processor time more"})
}

// IstioImages packs what [Bed.Istio] built as Istio's manifests name it, and returns the archives: pilot, and proxyv2 with the Envoy that
// `make deps` installs and this machine's nft. That Envoy has none of the filters that only Istio's own build has.
func (b *Bed) IstioImages(ctx context.Context) ([]string, error) {
	binary := b.Bin("istio")
	if _, err := os.Stat(binary); err != nil {
		return nil, errors.New("Istio is not built: run `go run ./test/kubernetes/cluster peers` (once, minutes)")
	}
	envoy, err := b.envoy()
	if err != nil {
		return nil, err
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		return nil, fmt.Errorf("nft, which sets up the capture of Istio's sidecars: %w (make deps)", err)
	}
	template, err := b.bootstrapTemplate(ctx)
	if err != nil {
		return nil, err
	}
	libraries, err := libraries(ctx, envoy, nft)
	if err != nil {
		return nil, err
	}
	proxy := append(libraries,
		image.File{Path: "/usr/local/bin/pilot-agent", Mode: 0o755, Source: binary},
		image.File{Path: "/usr/local/bin/envoy", Mode: 0o755, Source: envoy},
		image.File{Path: "/usr/sbin/nft", Mode: 0o755, Source: nft},
		image.File{Path: "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json", Source: template},
	)
	pilot := []image.File{{Path: "/usr/local/bin/pilot-discovery", Mode: 0o755, Source: binary}}
	var archives []string
	for name, p := range map[string]image.Platform{
		"pilot":   {Files: pilot, Entrypoint: []string{"/usr/local/bin/pilot-discovery"}},
		"proxyv2": {Files: proxy, Entrypoint: []string{"/usr/local/bin/pilot-agent"}},
	} {
		file := filepath.Join(b.Dir, "istio-images", name+".tar")
		if err := packIstio(file, IstioHub+"/"+name+":"+IstioVersion, p); err != nil {
			return nil, err
		}
		archives = append(archives, file)
	}
	return archives, nil
}

func packIstio(file, name string, p image.Platform) error {
	p.Architecture, p.User, p.WorkingDir = image.HostArchitecture, "1337:1337", "/"
	p.Env = []string{"PATH=/usr/local/bin:/usr/sbin"}
	p.Files = append(p.Files,
		image.File{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/:/sbin/nologin\nistio-proxy:x:1337:1337::/:/sbin/nologin\n")},
		image.File{Path: "/etc/group", Data: []byte("root:x:0:\nistio-proxy:x:1337:\n")},
		image.File{Path: "/tmp", Kind: image.Directory, Mode: 0o1777})
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := image.Write(f, image.Image{Name: name, Platforms: []image.Platform{p}}, image.Options{Compression: 1}); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// envoy is the program itself, not the script that PyPI's package starts it by.
func (b *Bed) envoy() (string, error) {
	found, _ := filepath.Glob(filepath.Join(b.Module, ".cache/envoy/lib/python3*/site-packages/envoy/_bin/envoy"))
	if len(found) == 0 {
		if path, err := exec.LookPath("envoy"); err == nil {
			return path, nil
		}
		return "", errors.New("no envoy, which Istio's sidecars are here: run `make deps`")
	}
	return found[0], nil
}

// bootstrapTemplate is the file of Istio's module that its agent makes Envoy's bootstrap from.
func (b *Bed) bootstrapTemplate(ctx context.Context) (string, error) {
	// Not list -m: it asks for the module's date, which who has the module alone does not know.
	c := exec.CommandContext(ctx, "go", "list", "-find", "-f", "{{.Module.Dir}}", "istio.io/istio/pilot/cmd/pilot-agent")
	c.Dir = filepath.Join(b.Module, "test/kubernetes/build/istio")
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("where Istio's module is: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "tools/packaging/common/envoy_bootstrap.json"), nil
}

var libraryPath = regexp.MustCompile(`(?m)(?:=>)?\s(/\S+) \(0x`)

// libraries are the shared ones that programs of this machine need, and what loads them, where they look for them.
func libraries(ctx context.Context, programs ...string) ([]image.File, error) {
	var files []image.File
	seen := map[string]bool{}
	for _, p := range programs {
		out, err := exec.CommandContext(ctx, "ldd", p).Output()
		if err != nil {
			return nil, fmt.Errorf("ldd %s: %w", p, err)
		}
		for _, m := range libraryPath.FindAllStringSubmatch(string(out), -1) {
			if path := m[1]; !seen[path] {
				seen[path] = true
				files = append(files, image.File{Path: path, Mode: 0o755, Source: path})
			}
		}
	}
	return files, nil
}
