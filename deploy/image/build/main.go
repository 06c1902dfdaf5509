// Command build makes the project's images as OCI archives, without Docker:
//
//	go run ./deploy/image/build -version v1 -arch amd64,arm64 -o bin/images
//
// It cross-compiles the programs with fixed flags and packs them. The same
// source, Go release and -version give the same bytes.
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"weft.mesh/weft/deploy/image"
)

func main() {
	b := builder{out: os.Stdout}
	only := ""
	arch := ""
	flag.StringVar(&b.version, "version", "devel", "tag of the images and version of the programs")
	flag.StringVar(&b.registry, "registry", "", "prefix of the names, such as registry.example/team")
	flag.StringVar(&arch, "arch", runtime.GOARCH, "architectures, separated by commas; several make one image for all")
	flag.StringVar(&b.dir, "o", "bin/images", "directory for the archives")
	flag.StringVar(&b.certificates, "certificates", "/etc/ssl/certs/ca-certificates.crt", "PEM file with the roots of public certificate authorities; empty for none")
	flag.StringVar(&only, "only", "", "names of images, separated by commas (default: all)")
	flag.IntVar(&b.compression, "compression", 0, "gzip level 1 to 9; 0 is 9")
	flag.Parse()
	b.archs = strings.Split(arch, ",")
	if err := b.all(only); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

type builder struct {
	version, registry, dir, certificates string
	archs                                []string
	compression                          int
	out                                  io.Writer
}

func (b builder) all(only string) error {
	if _, err := os.Stat("go.mod"); err != nil {
		return errors.New("run it in the top directory of the checkout")
	}
	if _, err := os.Stat(b.certificates); b.certificates != "" && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: no such file: install ca-certificates, or say -certificates= for images without", b.certificates)
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	want := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, s := range image.Specs() {
		if len(want) > 0 && !slices.Contains(want, s.Name) {
			continue
		}
		if err := b.image(s); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

// image compiles and packs one image and says what came out.
func (b builder) image(s image.Spec) error {
	start := time.Now()
	i := image.Image{Name: s.Reference(b.registry, b.version), Labels: map[string]string{
		"org.opencontainers.image.title":   path.Base(s.Name),
		"org.opencontainers.image.version": b.version,
	}}
	for _, arch := range b.archs {
		var binaries []string
		for _, p := range s.Programs {
			bin, err := b.compile(p, arch)
			if err != nil {
				return err
			}
			binaries = append(binaries, bin)
		}
		i.Platforms = append(i.Platforms, s.Platform(arch, binaries, b.certificates))
	}
	file := filepath.Join(b.dir, s.FileName())
	sum, size, err := writeFile(file, i, image.Options{Compression: b.compression})
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%-28s %s  %5.1f MB  %s  sha256:%.12s  %.1fs\n", i.Name, file, float64(size)/1e6, strings.Join(b.archs, "+"), sum, time.Since(start).Seconds())
	return nil
}

// compile builds a program as `make build` does.
func (b builder) compile(program, arch string) (string, error) {
	out := filepath.Join(b.dir, "programs", arch, path.Base(program))
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X weft.mesh/weft/internal/version.Version=" + b.version, "-o", out}
	if program == "cmd/weft-proxy" {
		args = append(args, "-pgo", program+"/release.pgo", "-tags", "grpcnotrace") // without golang.org/x/net/trace: 4.7 MB less
	}
	c := exec.Command("go", append(args, "./"+program)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build %s for %s: %w", program, arch, err)
	}
	return out, nil
}

// writeFile writes beside the file and renames, so that nobody reads half an archive.
func writeFile(file string, i image.Image, o image.Options) (sum string, size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".image-*")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := sha256.New()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := image.Write(io.MultiWriter(w, h), i, o); err != nil {
		return "", 0, err
	}
	if err := errors.Join(w.Flush(), f.Chmod(0o644)); err != nil {
		return "", 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), st.Size(), os.Rename(f.Name(), file)
}
