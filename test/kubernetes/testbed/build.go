package testbed

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"weft.mesh/weft/deploy/image"
)

// KubernetesVersion is that of test/kubernetes/build/kube/go.mod.
const KubernetesVersion = "1.34.4"

// program is one thing to build from a module of its own.
type program struct {
	name    string
	dir     string // below the checkout
	pkg     string // of dir's module or of one that it names; "": the package in dir
	ldflags string
	about   string
}

func programs() []program {
	return []program{
		{"kube", "test/kubernetes/build/kube", "", kubeLDFlags(), "Kubernetes " + KubernetesVersion + " in one program; 5 minutes with two idle processors, 13 or more with busy ones"},
		{"etcd", "test/kubernetes/build/etcd", "", "-s -w", "2 minutes"},
		{"coredns", "test/kubernetes/build/coredns", "", "-s -w", "2 to 4 minutes"},
		{"pause", "test/kubernetes/pause", "", "-s -w", ""},
		{"testbed", "test/kubernetes/cluster", "", "-s -w", "what a node's pid 1 runs"},
	}
}

// Peers builds the programs of others that tests hold Weft against. No cluster needs them, so [Bed.Build] leaves them
// out, and each test asks for its own.
func (b *Bed) Peers(ctx context.Context) error {
	return errors.Join(b.Prometheus(ctx), b.Istioctl(ctx), b.Istio(ctx), b.Kiali(ctx))
}

// Prometheus builds, unless it is there, what tests of scraping run: [Bed.Bin] of "prometheus".
func (b *Bed) Prometheus(ctx context.Context) error {
	return b.build(ctx, program{"prometheus", "test/kubernetes/build/prometheus", "", "-s -w", "Prometheus with its discovery of pods; 2 to 5 minutes"})
}

// IstioVersion is that of the istioctl which the tests run: the release whose commit test/kubernetes/build/istioctl/go.mod names.
const IstioVersion = "1.31.1"

// Istioctl builds, unless it is there, Istio's own istioctl, the whole program: [Bed.Bin] of "istioctl".
func (b *Bed) Istioctl(ctx context.Context) error {
	flags := "-s -w -X istio.io/istio/pkg/version.buildVersion=" + IstioVersion
	return b.build(ctx, program{"istioctl", "test/kubernetes/build/istioctl", "", flags, "Istio's istioctl " + IstioVersion + "; 10 minutes or so with two idle processors, 40 with busy ones"})
}

// Kiali builds, unless it is there, Kiali's own server, without its pages: [Bed.Bin] of "kiali". It is the newest version that
// is a Go module: later ones are none, because their tags begin with v2 and their path does not end so.
func (b *Bed) Kiali(ctx context.Context) error {
	return b.build(ctx, program{"kiali", "test/kubernetes/build/kiali", "github.com/kiali/kiali", "-s -w -X main.version=" + KialiVersion, "Kiali's server " + KialiVersion + "; 3 minutes with two idle processors, 20 with busy ones"})
}

// KialiVersion is that of test/kubernetes/build/kiali/go.mod.
const KialiVersion = "v1.89.0"

// parts are the names under which kube runs.
var parts = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}

// kubeLDFlags sets the version as Kubernetes' own build does; without it clients refuse to talk to v0.0.0.
func kubeLDFlags() string {
	minor := strings.Split(KubernetesVersion, ".")[1]
	flags := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, kv := range []string{"gitVersion=v" + KubernetesVersion, "gitMajor=1", "gitMinor=" + minor, "gitCommit=modproxy", "gitTreeState=clean", "buildDate=2026-01-01T00:00:00Z"} {
			flags += " -X " + pkg + "." + kv
		}
	}
	return flags
}

// Build builds what is missing or older than its source and packs the images of
// the cluster itself. What is there already costs a second.
func (b *Bed) Build(ctx context.Context) error {
	for _, p := range programs() {
		if err := b.build(ctx, p); err != nil {
			return fmt.Errorf("test bed: build %s: %w", p.name, err)
		}
	}
	for _, part := range parts {
		if err := os.Symlink("kube", b.Bin(part)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return b.ownImages()
}

// Missing says what [Bed.Build] has not built yet: what tests skip for.
func (b *Bed) Missing() error {
	for _, name := range append([]string{"etcd"}, parts...) {
		if _, err := os.Stat(b.Bin(name)); err != nil {
			return fmt.Errorf("%s is not built: run `go run ./test/kubernetes/cluster build` (5 to 15 minutes, once)", name)
		}
	}
	return nil
}

func (b *Bed) build(ctx context.Context, p program) error {
	dir := filepath.Join(b.Module, p.dir)
	stamp := filepath.Join(b.Dir, "bin", "."+p.name+".source")
	if err := os.MkdirAll(filepath.Dir(stamp), 0o755); err != nil {
		return err
	}
	// Modules of their own are large, and what they are built from is their
	// go.mod and main.go. The rest is ours, and go build knows best.
	key := ""
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		key = sourceKey(dir, p.ldflags)
		have, _ := os.ReadFile(stamp)
		if _, err := os.Stat(b.Bin(p.name)); err == nil && string(have) == key {
			return nil
		}
		b.say("building %s (%s)", p.name, p.about)
	}
	done := b.heartbeat(p.name)
	defer done()
	c := exec.CommandContext(ctx, "go", "build", "-ldflags", p.ldflags, "-o", b.Bin(p.name), cmp.Or(p.pkg, "."))
	c.Dir = dir
	// One set of flags for all builds, or the cache has everything twice.
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
	c.Stdout, c.Stderr = b.Log, b.Log
	if err := c.Run(); err != nil {
		return err
	}
	if key == "" {
		return nil
	}
	return os.WriteFile(stamp, []byte(key), 0o644)
}

func sourceKey(dir, flags string) string {
	h := sha256.New()
	fmt.Fprintln(h, flags)
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// heartbeat says each half minute that a build goes on, and at the end how long it took.
func (b *Bed) heartbeat(name string) (done func()) {
	start, end, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(30 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-end:
				return
			case <-t.C:
				b.say("  %s: still building after %s", name, time.Since(start).Round(time.Second))
			}
		}
	}()
	return func() {
		close(end)
		<-ended
		if took := time.Since(start); took > 5*time.Second {
			b.say("  %s: built in %s", name, took.Round(time.Second))
		}
	}
}

// Names of the cluster's own images.
const (
	pauseImage   = "localhost/pause:1"
	corednsImage = "localhost/coredns:1"
)

func (b *Bed) ownImages() error {
	if err := os.MkdirAll(b.Images(), 0o755); err != nil {
		return err
	}
	for name, program := range map[string]string{pauseImage: "pause", corednsImage: "coredns"} {
		out := filepath.Join(b.Images(), program+".tar")
		if newer(out, b.Bin(program)) {
			continue
		}
		if err := Pack(out, name, b.Bin(program), "/"+program); err != nil {
			return err
		}
	}
	return nil
}

// Pack makes an image of one static program, for this machine, with the
// program as its entry point.
func Pack(file, name, binary, path string) error {
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	i := image.Image{Name: name, Platforms: []image.Platform{image.Host(binary, path)}}
	if err := image.Write(f, i, image.Options{Compression: 1}); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

func newer(file, than string) bool {
	a, errA := os.Stat(file)
	b, errB := os.Stat(than)
	return errA == nil && errB == nil && a.ModTime().After(b.ModTime())
}
