package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// epoch is the time of every file: the content, not the moment of the build, decides the bytes.
var epoch = time.Unix(0, 0).UTC()

// layer is a layer's bytes, and the digest of what they are uncompressed.
type layer struct {
	compressed []byte
	diffID     string
}

// makeLayer writes the files, and the directories above them, in order of
// their paths.
func makeLayer(files []File, compression int) (layer, error) {
	entries, err := withParents(files)
	if err != nil {
		return layer{}, err
	}
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, f := range entries {
		if err := addFile(w, f); err != nil {
			return layer{}, err
		}
	}
	if err := w.Close(); err != nil {
		return layer{}, err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, compression)
	if err != nil {
		return layer{}, err
	}
	if _, err := z.Write(raw.Bytes()); err != nil {
		return layer{}, err
	}
	if err := z.Close(); err != nil {
		return layer{}, err
	}
	return layer{out.Bytes(), digest(raw.Bytes())}, nil
}

// withParents checks the paths, adds the directories that are missing, and sorts.
func withParents(files []File) ([]File, error) {
	byPath := map[string]File{}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("file %q: want an absolute, clean path", f.Path)
		}
		if _, ok := byPath[f.Path]; ok {
			return nil, fmt.Errorf("file %q: there twice", f.Path)
		}
		byPath[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			above, ok := byPath[dir]
			if !ok {
				byPath[dir] = File{Path: dir, Kind: Directory}
			} else if above.Kind != Directory {
				return nil, fmt.Errorf("file %q: %q is no directory", f.Path, dir)
			}
		}
	}
	all := make([]File, 0, len(byPath))
	for _, f := range byPath {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

func addFile(w *tar.Writer, f File) error {
	h := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode), Uid: f.UID, Gid: f.UID, ModTime: epoch, Format: tar.FormatUSTAR}
	var content []byte
	switch f.Kind {
	case Directory:
		h.Name, h.Typeflag = h.Name+"/", tar.TypeDir
		if f.Mode == 0 {
			h.Mode = 0o755
		}
	case Symlink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	default:
		h.Typeflag = tar.TypeReg
		if f.Mode == 0 {
			h.Mode = 0o644
		}
		content = f.Data
		if f.Source != "" {
			b, err := os.ReadFile(f.Source)
			if err != nil {
				return fmt.Errorf("file %q: %w", f.Path, err)
			}
			content = b
		}
		h.Size = int64(len(content))
	}
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("file %q: %w", f.Path, err)
	}
	_, err := w.Write(content)
	return err
}
