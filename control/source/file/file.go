// Package file delivers the objects of YAML and JSON files, and follows their changes.
//
// It watches directories (one level: *.yaml, *.yml, *.json, no hidden files),
// so that editors that rename a new file over the old one and Kubernetes'
// swapped symlinks are seen, and waits until a burst of changes is over. The
// whole set is checked before anything of it is delivered. A file that cannot
// be accepted keeps the objects that it had when it was last good, is listed by
// [Source.Problems], and is tried again when anything changes. A file that is
// removed takes its objects with it; a directory that cannot be read any more
// takes nothing with it.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/model"
)

// Settings of a source.
type Settings struct {
	// Paths are files and directories. They must exist when Run begins.
	Paths []string
	// Options for decoding; Options.Pods makes this the trusted pods directory.
	Options convert.Options
	// Check, if set, judges a candidate against the whole mesh before it is
	// delivered: changed is all that the files would hold, deleted what this
	// source delivered and would take back. Existing objects are the caller's
	// business. Diagnostics are blamed on files by their File.
	Check func(changed []convert.Object, deleted []model.Key) []admin.Diagnostic
	// OnProblems, if set, is called by Run's goroutine whenever Problems changes.
	OnProblems func([]admin.Diagnostic)
	// Quiet is how long nothing must change before files are read. Default 50 ms.
	Quiet time.Duration
	// Patience bounds how long a stream of changes can put reading off. Default 1 s.
	Patience time.Duration
	// Rescan is how often files are read without a notice, for file systems that give none. Default 10 s.
	Rescan time.Duration
}

func (s Settings) withDefaults() Settings {
	if s.Quiet <= 0 {
		s.Quiet = 50 * time.Millisecond
	}
	if s.Patience <= 0 {
		s.Patience = time.Second
	}
	if s.Rescan <= 0 {
		s.Rescan = 10 * time.Second
	}
	return s
}

// Source is a source of files. Safe for concurrent use, except that only one Run may be active.
type Source struct {
	settings Settings
	recheck  chan struct{}

	mu       sync.Mutex // protects problems
	problems []admin.Diagnostic
}

// New makes a source. It reads nothing before Run.
func New(settings Settings) *Source {
	return &Source{settings: settings.withDefaults(), recheck: make(chan struct{}, 1)}
}

// Problems lists what is wrong with the files now: errors of files that are not in force, and warnings of those that are.
func (s *Source) Problems() []admin.Diagnostic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

// Recheck makes Run judge the files again, because something else that they refer to has changed.
func (s *Source) Recheck() {
	select {
	case s.recheck <- struct{}{}:
	default:
	}
}

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	for _, p := range s.settings.Paths {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("file source: %s: %w", p, cause(err))
		}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("file source: watch: %w: is the limit of inotify instances reached (fs.inotify.max_user_instances)?", err)
	}
	defer w.Close()
	st := newState(s)
	st.watch(w)
	st.scan(sink, true)
	sink.Synced()
	return s.follow(ctx, w, st, sink)
}

// follow waits for changes and scans when they have calmed down.
func (s *Source) follow(ctx context.Context, w *fsnotify.Watcher, st *state, sink source.Sink) error {
	rescan := time.NewTicker(s.settings.Rescan)
	defer rescan.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var first time.Time // of the changes that have not been read
	must := false       // judge again, even if no file has changed
	note := func() {
		if first.IsZero() {
			first = time.Now()
		}
		quiet.Reset(max(0, min(s.settings.Quiet, s.settings.Patience-time.Since(first))))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return errors.New("file source: the watcher ended by itself")
			}
			note()
		case _, ok := <-w.Errors: // an overflow: something was missed, so read everything
			if !ok {
				return errors.New("file source: the watcher ended by itself")
			}
			note()
		case <-s.recheck:
			must = true
			note()
		case <-rescan.C:
			note()
		case <-quiet.C:
			st.watch(w)
			st.scan(sink, must)
			first, must = time.Time{}, false
		}
	}
}

func (s *Source) report(problems []admin.Diagnostic) {
	problems = convert.Sort(problems)
	s.mu.Lock()
	same := slices.Equal(s.problems, problems)
	s.problems = problems
	s.mu.Unlock()
	if !same && s.settings.OnProblems != nil {
		s.settings.OnProblems(slices.Clone(problems))
	}
}

// cause is the reason without the path, which messages have already.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// isConfig tells whether a name in a directory is read.
func isConfig(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// Read reads the files that paths name, in the order and by the rules of a
// source, once: what weft apply -f and weft up send.
func Read(paths []string) ([]admin.File, error) {
	var out []admin.File
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, cause(err))
		}
		names := []string{p}
		if info.IsDir() {
			if names, err = list(p); err != nil {
				return nil, fmt.Errorf("%s: %w", p, cause(err))
			}
			if len(names) == 0 {
				return nil, fmt.Errorf("%s: the directory has no *.yaml, *.yml or *.json file", p)
			}
		}
		for _, n := range names {
			text, err := read(n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", n, cause(err))
			}
			out = append(out, admin.File{Name: n, Content: text})
		}
	}
	return out, nil
}

// list gives the files of a directory, sorted by name.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if !isConfig(e.Name()) {
			continue
		}
		p := filepath.Join(dir, e.Name())
		if info, err := os.Stat(p); err != nil || info.IsDir() { // Stat: symlinks are followed
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

// read reads a file, but no more than Decode takes.
func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	if info.Size() > convert.MaxFile {
		return "", fmt.Errorf("larger than %d bytes", convert.MaxFile)
	}
	b, err := io.ReadAll(io.LimitReader(f, convert.MaxFile+1))
	if err != nil {
		return "", err
	}
	return string(b), nil
}
