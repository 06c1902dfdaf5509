package image

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor points to a blob (OCI image specification, "Content Descriptors").
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type config struct {
	Created      string    `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       runConfig `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
}

type runConfig struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// DefaultPath is the PATH of images that set none.
const DefaultPath = "PATH=/usr/local/bin:/usr/bin:/bin"

// Options of writing.
type Options struct {
	// Compression is gzip's level; 0 is the best there is. 1 is fastest, for tests.
	Compression int
}

// Write writes the image as one archive (OCI image layout in a tar).
func Write(w io.Writer, i Image, o Options) error {
	if err := i.check(); err != nil {
		return err
	}
	if o.Compression == 0 {
		o.Compression = gzip.BestCompression
	}
	s := blobs{}
	top, err := s.image(i, o.Compression)
	if err != nil {
		return fmt.Errorf("image %q: %w", i.Name, err)
	}
	_, tag, _ := Reference(i.Name)
	// containerd takes the full name from its own annotation, others from OCI's.
	top.Annotations = map[string]string{"io.containerd.image.name": Canonical(i.Name), "org.opencontainers.image.ref.name": tag}
	return s.write(w, encode(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{top}}))
}

// blobs are what an archive holds, by digest.
type blobs map[string][]byte

func (s blobs) put(mediaType string, b []byte) descriptor {
	d := digest(b)
	s[d] = b
	return descriptor{MediaType: mediaType, Digest: d, Size: len(b)}
}

// image stores all platforms; one alone is a manifest, several are an index.
func (s blobs) image(i Image, compression int) (descriptor, error) {
	var each []descriptor
	for _, p := range i.Platforms {
		d, err := s.platform(i, p, compression)
		if err != nil {
			return descriptor{}, fmt.Errorf("%s: %w", p.Architecture, err)
		}
		each = append(each, d)
	}
	if len(each) == 1 {
		return each[0], nil
	}
	return s.put(typeIndex, encode(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: each, Annotations: i.Labels})), nil
}

func (s blobs) platform(i Image, p Platform, compression int) (descriptor, error) {
	l, err := makeLayer(p.Files, compression)
	if err != nil {
		return descriptor{}, err
	}
	env := p.Env
	if !slices.ContainsFunc(env, func(e string) bool { return len(e) > 5 && e[:5] == "PATH=" }) {
		env = append([]string{DefaultPath}, env...)
	}
	c := config{
		Created: epoch.Format("2006-01-02T15:04:05Z07:00"), Architecture: p.Architecture, OS: "linux",
		Config: runConfig{User: p.User, Env: env, Entrypoint: p.Entrypoint, Cmd: p.Command, WorkingDir: p.WorkingDir, Labels: i.Labels},
		RootFS: rootFS{"layers", []string{l.diffID}},
	}
	d := s.put(typeManifest, encode(manifest{
		SchemaVersion: 2, MediaType: typeManifest, Annotations: i.Labels,
		Config: s.put(typeConfig, encode(c)),
		Layers: []descriptor{s.put(typeLayer, l.compressed)},
	}))
	d.Platform = &platform{p.Architecture, "linux"}
	return d, nil
}

// write writes the layout: its version, the index, the blobs in order of their digests.
func (s blobs) write(w io.Writer, index []byte) error {
	t := tar.NewWriter(w)
	put := func(name string, b []byte) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b)), ModTime: epoch, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		_, err := t.Write(b)
		return err
	}
	if err := put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := put("index.json", index); err != nil {
		return err
	}
	names := make([]string, 0, len(s))
	for d := range s {
		names = append(names, d)
	}
	slices.Sort(names)
	for _, d := range names {
		if err := put("blobs/sha256/"+d[len("sha256:"):], s[d]); err != nil {
			return err
		}
	}
	return t.Close()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// encode is JSON of our own structs, which cannot fail; maps in it are sorted by encoding/json.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
