package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// two is an image for two architectures, with entries of every kind.
func two(t *testing.T) Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("the program"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []File{
		{Path: "/usr/local/bin/program", Mode: 0o755, Source: file},
		{Path: "/tmp", Kind: Directory, Mode: 0o1777},
		{Path: "/bin/sh", Kind: Symlink, Link: "busybox"},
		{Path: "/var/lib/own", Kind: Directory, Mode: 0o700, UID: 1337},
	}
	return Image{
		Name:   "registry.example:5000/weft/proxy:v1.2",
		Labels: map[string]string{"org.opencontainers.image.version": "v1.2"},
		Platforms: []Platform{
			{Architecture: "amd64", Files: files, Entrypoint: []string{"/usr/local/bin/program"}, User: "1337", WorkingDir: "/", Env: []string{"A=b"}},
			{Architecture: "arm64", Files: files, User: "1337"},
		},
	}
}

func written(t *testing.T, i Image) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, i, Options{}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSameInputSameBytes(t *testing.T) {
	a := written(t, two(t)) // each from another file with another time
	b := two(t)
	for p := range b.Platforms {
		slices.Reverse(b.Platforms[p].Files) // the order of entries is not input
	}
	if !bytes.Equal(a, written(t, b)) {
		t.Error("the same input made other bytes")
	}
	b.Platforms[0].User = "0"
	if bytes.Equal(a, written(t, b)) {
		t.Error("another user made the same bytes")
	}
}

// layout is an archive read back: blobs by digest, each one checked.
type layout map[string][]byte

func read(t *testing.T, archive []byte) (l layout, index []byte) {
	t.Helper()
	l = layout{}
	for name, e := range untar(t, archive) {
		switch digestOf, ok := strings.CutPrefix(name, "blobs/sha256/"); {
		case ok:
			if digest(e.data) != "sha256:"+digestOf {
				t.Errorf("%s: content has digest %s", name, digest(e.data))
			}
			l["sha256:"+digestOf] = e.data
		case name == "oci-layout":
			if string(e.data) != `{"imageLayoutVersion":"1.0.0"}` {
				t.Errorf("oci-layout: %s", e.data)
			}
		case name == "index.json":
			index = e.data
		default:
			t.Errorf("%s: no such entry in the specification", name)
		}
	}
	return l, index
}

type entry struct {
	header *tar.Header
	data   []byte
}

func untar(t *testing.T, b []byte) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: time %v", h.Name, h.ModTime)
		}
		all[h.Name] = entry{h, data}
	}
}

// get reads the blob that a descriptor points to.
func (l layout) get(t *testing.T, d descriptor, mediaType string, out any) []byte {
	t.Helper()
	b, ok := l[d.Digest]
	if !ok || len(b) != d.Size || d.MediaType != mediaType {
		t.Fatalf("descriptor %+v: there %v, %d bytes, want %s", d, ok, len(b), mediaType)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestTheLayoutIsThatOfTheSpecification(t *testing.T) {
	l, text := read(t, written(t, two(t)))
	var top, platforms index
	if err := json.Unmarshal(text, &top); err != nil || top.SchemaVersion != 2 || len(top.Manifests) != 1 {
		t.Fatalf("index.json: %v: %s", err, text)
	}
	if a := top.Manifests[0].Annotations; a["io.containerd.image.name"] != "registry.example:5000/weft/proxy:v1.2" || a["org.opencontainers.image.ref.name"] != "v1.2" {
		t.Errorf("annotations: %v", a)
	}
	l.get(t, top.Manifests[0], typeIndex, &platforms)
	for i, arch := range []string{"amd64", "arm64"} {
		d := platforms.Manifests[i]
		if d.Platform == nil || *d.Platform != (platform{arch, "linux"}) {
			t.Errorf("platform %d: %+v", i, d.Platform)
		}
		var m manifest
		l.get(t, d, typeManifest, &m)
		var c config
		l.get(t, m.Config, typeConfig, &c)
		if c.Architecture != arch || c.OS != "linux" || c.Config.User != "1337" || !slices.Contains(c.Config.Env, DefaultPath) {
			t.Errorf("config: %+v", c)
		}
		z, err := gzip.NewReader(bytes.NewReader(l.get(t, m.Layers[0], typeLayer, nil)))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(z)
		if err != nil || digest(raw) != c.RootFS.DiffIDs[0] {
			t.Fatalf("layer: %v, diff ID %s, want %s", err, digest(raw), c.RootFS.DiffIDs[0])
		}
		checkFiles(t, untar(t, raw))
	}
}

func checkFiles(t *testing.T, files map[string]entry) {
	t.Helper()
	for name, want := range map[string]struct {
		kind byte
		mode int64
		uid  int
		data string
	}{
		"usr/": {tar.TypeDir, 0o755, 0, ""}, "usr/local/bin/": {tar.TypeDir, 0o755, 0, ""},
		"usr/local/bin/program": {tar.TypeReg, 0o755, 0, "the program"},
		"tmp/":                  {tar.TypeDir, 0o1777, 0, ""},
		"bin/sh":                {tar.TypeSymlink, 0o777, 0, ""},
		"var/lib/own/":          {tar.TypeDir, 0o700, 1337, ""},
	} {
		e, ok := files[name]
		if !ok || e.header.Typeflag != want.kind || e.header.Mode != want.mode || e.header.Uid != want.uid || string(e.data) != want.data {
			t.Errorf("%s: there %v: %+v", name, ok, e.header)
		}
	}
}

func TestOnePlatformIsNoIndex(t *testing.T) {
	i := two(t)
	i.Platforms = i.Platforms[:1]
	l, text := read(t, written(t, i))
	var top index
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	l.get(t, top.Manifests[0], typeManifest, nil)
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	ok := two(t)
	for want, spoil := range map[string]func(*Image){
		`image "weft/weft": no tag: write repository:tag`:                   func(i *Image) { i.Name = "weft/weft" },
		`image "registry:5000/weft": no tag: write repository:tag`:          func(i *Image) { i.Name = "registry:5000/weft" },
		`image "weft:a b": tag: character ' ' is not allowed`:               func(i *Image) { i.Name = "weft:a b" },
		`image "Weft:a": repository: want lower case words separated by /`:  func(i *Image) { i.Name = "Weft:a" },
		`image "a:b": no platform`:                                          func(i *Image) { i.Name, i.Platforms = "a:b", nil },
		`image "a:b": architecture "amd64": empty, or there twice`:          func(i *Image) { i.Name = "a:b"; i.Platforms[1].Architecture = "amd64" },
		`image "a:b": amd64: file "relative": want an absolute, clean path`: func(i *Image) { i.Name = "a:b"; i.Platforms[0].Files = []File{{Path: "relative"}} },
		`image "a:b": amd64: file "/a": there twice`:                        func(i *Image) { i.Name = "a:b"; i.Platforms[0].Files = []File{{Path: "/a"}, {Path: "/a"}} },
		`image "a:b": amd64: file "/a/b": "/a" is no directory`:             func(i *Image) { i.Name = "a:b"; i.Platforms[0].Files = []File{{Path: "/a"}, {Path: "/a/b"}} },
		`image "a:b": amd64: file "/a": open /there-is-no-such-file: no such file or directory`: func(i *Image) {
			i.Name = "a:b"
			i.Platforms[0].Files = []File{{Path: "/a", Source: "/there-is-no-such-file"}}
		},
	} {
		i := ok
		i.Platforms = slices.Clone(ok.Platforms)
		spoil(&i)
		if err := Write(io.Discard, i, Options{}); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestTheProjectsImages(t *testing.T) {
	names := map[string]string{}
	for _, s := range Specs() {
		if _, _, err := Reference(s.Reference("registry.example/team", "v1")); err != nil {
			t.Error(err)
		}
		names[s.Name] = s.Reference("registry.example/team", "v1")
		p := s.Platform("arm64", make([]string, len(s.Programs)), "")
		if root := p.User == "0" || p.User == ""; root != (s.Name == "weft/cni") { // only the node agent writes into the node's folders
			t.Errorf("%s runs as %q", s.Name, p.User)
		}
		for _, program := range s.Programs {
			if _, err := os.Stat("../../" + program); err != nil {
				t.Error(err)
			}
		}
		for _, link := range []struct{ name, to, in string }{{"pilot-agent", "weft-proxy", "weft/proxy"}, {"pilot-discovery", "weft", "weft/weft"}} {
			there := slices.ContainsFunc(p.Files, func(f File) bool {
				return f.Path == "/usr/local/bin/"+link.name && f.Kind == Symlink && f.Link == link.to
			})
			if there != (s.Name == link.in) {
				t.Errorf("%s: %s is there: %v", s.Name, link.name, there)
			}
		}
	}
	if names["weft/weft"] != "registry.example/team/weft/weft:v1" || names["weft.mesh/bookinfo"] != "weft.mesh/bookinfo:latest" {
		t.Errorf("names: %v", names)
	}
	// The sample's manifests find the image and the program.
	manifest, err := os.ReadFile("../../samples/bookinfo/platform/bookinfo.yaml")
	if err != nil || !bytes.Contains(manifest, []byte("image: "+names["weft.mesh/bookinfo"]+"\n")) {
		t.Errorf("bookinfo.yaml does not name %s: %v", names["weft.mesh/bookinfo"], err)
	}
}

// A manifest that says weft/weft:v1 must find what was imported.
func TestNamesAreAsRuntimesStoreThem(t *testing.T) {
	for name, want := range map[string]string{
		"weft/weft:v1":                   "docker.io/weft/weft:v1",
		"busybox:1":                      "docker.io/library/busybox:1",
		"weft.mesh/bookinfo:latest":      "weft.mesh/bookinfo:latest",
		"localhost/pause:1":              "localhost/pause:1",
		"registry:5000/weft/proxy:v1":    "registry:5000/weft/proxy:v1",
		"registry.example/weft/proxy:v1": "registry.example/weft/proxy:v1",
	} {
		if got := Canonical(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
