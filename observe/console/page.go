package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// dist is the built page.
//
//go:embed all:dist
var dist embed.FS

// asset is one file of the page.
type asset struct {
	body []byte
	kind string // media type
	etag string
}

// page serves the built files from memory. Browsers ask each time whether a
// file changed, which costs nothing on loopback: names need no hash.
type page map[string]asset

func newPage() (page, error) {
	p := page{}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := dist.ReadFile(name)
		if err != nil {
			return err
		}
		kind := mediaType(name)
		if kind == "" {
			return fmt.Errorf("%s: no media type is known for it", name)
		}
		sum := sha256.Sum256(b)
		p["/"+strings.TrimPrefix(name, "dist/")] = asset{body: b, kind: kind, etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	if err != nil {
		return nil, err
	}
	index, ok := p["/index.html"]
	if !ok {
		return nil, fmt.Errorf("dist/index.html is missing: run make console")
	}
	p["/"] = index
	return p, nil
}

// mediaType by a table of our own: mime's depends on the machine.
func mediaType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".txt", ".md":
		return "text/plain; charset=utf-8"
	default:
		return mime.TypeByExtension(ext)
	}
}

// ServeHTTP implements http.Handler.
func (p page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, ok := p[r.URL.Path]
	if !ok {
		writeError(w, http.StatusNotFound, "no page "+r.URL.Path+"; the console is at /")
		return
	}
	h := w.Header()
	h.Set("ETag", a.etag)
	h.Set("Cache-Control", "no-cache")
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.kind)
	h.Set("Content-Length", fmt.Sprint(len(a.body)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(a.body) // the visitor left
}
