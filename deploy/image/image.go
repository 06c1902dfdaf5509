// Package image makes container images without Docker: it writes OCI image
// layouts as tar archives that containerd, Podman, Docker and skopeo import.
//
// The bytes of an archive depend on its input and on the Go release that
// compresses it, on nothing else: no clock, no user, no order of a map. It
// reads the files that it is given and writes to the writer that it is given;
// it runs no program and opens no connection.
//
// Formats: OCI image format specification 1.1 (image-layout, image-index,
// manifest, config, layer).
package image

import (
	"fmt"
	"path"
	"strings"
)

// Image is what one archive holds: one name, one or more platforms.
type Image struct {
	// Name is the full reference with its tag, "weft/weft:v1" or
	// "registry.example:5000/weft/weft:v1". A program that imports the archive
	// gives the image this name.
	Name string
	// Platforms are the variants, each for another architecture. At least one.
	Platforms []Platform
	// Labels and annotations of the manifest, such as
	// org.opencontainers.image.version.
	Labels map[string]string
}

// Platform is the image for one architecture of Linux.
type Platform struct {
	Architecture string // Go's name: amd64, arm64
	Files        []File
	Entrypoint   []string
	Command      []string
	User         string // "65532" or "65532:65532"; empty is root
	WorkingDir   string // default /
	Env          []string
}

// File is one entry of the single layer. Directories above it are made
// with mode 0755. Everything belongs to root unless UID says otherwise.
type File struct {
	Path string // absolute, in the image
	Mode uint32 // permission bits, and 01000 for sticky; 0 is 0644, or 0755 for a directory
	UID  int    // owner and group
	Kind Kind
	// Source is the file on disk with the content; if it is empty, Data is the
	// content. A link has its target in Link.
	Source string
	Data   []byte
	Link   string
}

// Kind says what an entry is.
type Kind int

const (
	Regular Kind = iota
	Directory
	Symlink
)

// Reference splits a name into repository and tag. The tag is required:
// an image without one would be "latest", which Kubernetes pulls always.
func Reference(name string) (repository, tag string, err error) {
	slash := strings.LastIndexByte(name, '/')
	colon := strings.LastIndexByte(name, ':')
	if colon <= slash || colon == len(name)-1 {
		return "", "", fmt.Errorf("image %q: no tag: write repository:tag", name)
	}
	repository, tag = name[:colon], name[colon+1:]
	for _, c := range tag {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", c) {
			return "", "", fmt.Errorf("image %q: tag: character %q is not allowed", name, c)
		}
	}
	if len(tag) > 128 || tag[0] == '.' || tag[0] == '-' {
		return "", "", fmt.Errorf("image %q: tag: at most 128 characters, and the first a letter, a digit or _", name)
	}
	if repository == "" || repository != strings.ToLower(repository) || path.Clean(repository) != repository {
		return "", "", fmt.Errorf("image %q: repository: want lower case words separated by /", name)
	}
	return repository, tag, nil
}

func (i Image) check() error {
	if _, _, err := Reference(i.Name); err != nil {
		return err
	}
	if len(i.Platforms) == 0 {
		return fmt.Errorf("image %q: no platform", i.Name)
	}
	seen := map[string]bool{}
	for _, p := range i.Platforms {
		if p.Architecture == "" || seen[p.Architecture] {
			return fmt.Errorf("image %q: architecture %q: empty, or there twice", i.Name, p.Architecture)
		}
		seen[p.Architecture] = true
	}
	return nil
}

// Canonical is the name that container runtimes store an image under: one
// whose first word is no host ("weft/weft:v1") belongs to docker.io.
func Canonical(name string) string {
	first, rest, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		return "docker.io/library/" + name
	case strings.ContainsAny(first, ".:") || first == "localhost":
		return name
	}
	return "docker.io/" + first + "/" + rest
}
