// Package store keeps configuration objects in one bbolt file.
//
// Every Apply is one transaction: all of it is on disk when it returns, or
// none. Revisions grow by one with each transaction that changes something.
// Watchers read a bounded history; one that falls behind starts anew from the
// whole state, so that no watcher can make the store hold memory.
// The file has mode 0600 and one owner at a time.
//
// It does not judge objects: convert and analyze do, before Apply.
// Safe for concurrent use. It starts no goroutine.
package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// Errors that callers branch on.
var (
	// ErrInUse means that another process has the file open.
	ErrInUse = errors.New("another weft uses it")
	// ErrClosed means that the store has been closed.
	ErrClosed = errors.New("the store is closed")
)

var (
	bucketObjects = []byte("objects")
	bucketMeta    = []byte("meta")
	keyRevision   = []byte("revision")
	keyFormat     = []byte("format")
)

// format is the layout of the file; an unknown one is refused rather than guessed.
const format = "1"

// Settings of a store. The zero value is good.
type Settings struct {
	Options     convert.Options
	LockTimeout time.Duration    // how long to wait for another process; default 2 s
	History     int              // transactions that watchers may be behind; default 1000
	Now         func() time.Time // default time.Now
}

// Store is an open store.
type Store struct {
	settings Settings
	db       *bbolt.DB

	mu       sync.Mutex // protects the following
	closed   bool
	revision uint64
	objects  map[model.Key]Entry
	history  []batch // oldest first, consecutive revisions
	changed  chan struct{}
	problems []admin.Diagnostic
}

// Entry is one stored object.
type Entry struct {
	Object   convert.Object
	Revision uint64 // of the transaction that wrote it
}

// batch is one transaction.
type batch struct {
	revision uint64
	puts     []convert.Object
	deletes  []model.Key
}

// record is what is on disk for one object.
type record struct {
	Revision uint64          `json:"revision"`
	Created  time.Time       `json:"created"`
	Object   json.RawMessage `json:"object"`
}

// Open opens or makes the store at path.
func Open(path string, settings Settings) (*Store, error) {
	if settings.LockTimeout <= 0 {
		settings.LockTimeout = 2 * time.Second
	}
	if settings.History <= 0 {
		settings.History = 1000
	}
	if settings.Now == nil {
		settings.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("store: make directory: %w", err)
	}
	if err := tighten(path); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: settings.LockTimeout})
	if err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			return nil, fmt.Errorf("store %s: %w: stop it with weft down, or use another --state-dir", path, ErrInUse)
		}
		return nil, fmt.Errorf("store %s: open: %w: if the file is damaged, move it away and apply the configuration again", path, err)
	}
	s := &Store{settings: settings, db: db, objects: map[model.Key]Entry{}, changed: make(chan struct{})}
	if err := s.load(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	return s, nil
}

// tighten takes rights away from a file that others can read.
func tighten(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("store: restrict mode: %w", err)
		}
	}
	return nil
}

func (s *Store) load() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		objs, err := tx.CreateBucketIfNotExists(bucketObjects)
		if err != nil {
			return fmt.Errorf("make bucket: %w", err)
		}
		meta, err := tx.CreateBucketIfNotExists(bucketMeta)
		if err != nil {
			return fmt.Errorf("make bucket: %w", err)
		}
		if f := string(meta.Get(keyFormat)); f == "" {
			if err := meta.Put(keyFormat, []byte(format)); err != nil {
				return err
			}
		} else if f != format {
			return fmt.Errorf("the file has format %s, this weft reads %s: use the weft that wrote it", f, format)
		}
		if v := meta.Get(keyRevision); len(v) == 8 {
			s.revision = binary.BigEndian.Uint64(v)
		}
		return objs.ForEach(s.loadObject)
	})
}

// loadObject reads one record. One that this version cannot read stays in the
// file and is reported; the others are served.
func (s *Store) loadObject(k, v []byte) error {
	var r record
	if err := json.Unmarshal(v, &r); err != nil {
		s.problems = append(s.problems, unreadable(k, err.Error()))
		return nil
	}
	o, diags := convert.DecodeStored(r.Object, convert.SourceStore, s.settings.Options)
	if convert.HasErrors(diags) {
		s.problems = append(s.problems, diags...)
		return nil
	}
	s.objects[o.Key] = Entry{Object: o.Stored(r.Created), Revision: r.Revision}
	return nil
}

func unreadable(k []byte, why string) admin.Diagnostic {
	return admin.Diagnostic{Severity: admin.SeverityError, Code: convert.CodeUnreadableFile, File: convert.SourceStore,
		Object: strings.ReplaceAll(string(k), "\x00", " "), Message: "the stored object cannot be read: " + why, Hint: "apply it again"}
}

// Problems lists stored objects that could not be read when the store was opened.
func (s *Store) Problems() []admin.Diagnostic { return slices.Clone(s.problems) }

// Close ends the store. Watches end with ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.changed)
	return s.db.Close()
}

func diskKey(k model.Key) []byte {
	return []byte(string(k.Kind) + "\x00" + k.Namespace + "\x00" + k.Name)
}

// Apply puts and deletes objects in one transaction and says what became of
// each, in the order given. Deleting what is not there is not an error and is
// not listed. The revision is that of the store afterwards.
func (s *Store) Apply(puts []convert.Object, deletes []model.Key) ([]admin.Applied, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, ErrClosed
	}
	applied, b, created := s.plan(puts, deletes)
	if len(b.puts)+len(b.deletes) == 0 {
		return applied, s.revision, nil
	}
	b.revision = s.revision + 1
	if err := s.write(b, created); err != nil {
		return nil, s.revision, fmt.Errorf("store: write: %w", err)
	}
	s.publish(b)
	return applied, s.revision, nil
}

// plan finds out what changes.
func (s *Store) plan(puts []convert.Object, deletes []model.Key) (applied []admin.Applied, b batch, created map[model.Key]time.Time) {
	now := s.settings.Now().UTC().Truncate(time.Millisecond)
	created = map[model.Key]time.Time{}
	pending := map[model.Key]json.RawMessage{}
	for _, o := range puts {
		a := admin.Applied{Kind: string(o.Key.Kind), Namespace: o.Key.Namespace, Name: o.Key.Name, Action: admin.ActionCreated}
		old, exists := s.objects[o.Key]
		at := now
		raw := old.Object.Raw
		if exists {
			a.Action, at = admin.ActionConfigured, old.Object.Meta.Created
		}
		if p, twice := pending[o.Key]; twice {
			raw, exists = p, true
		}
		if exists && string(raw) == string(o.Raw) {
			a.Action = admin.ActionUnchanged
		} else {
			created[o.Key], pending[o.Key] = at, o.Raw
			b.puts = append(b.puts, o.Stored(at))
		}
		applied = append(applied, a)
	}
	for _, k := range deletes {
		_, exists := s.objects[k]
		if _, fresh := pending[k]; !exists || fresh {
			continue
		}
		b.deletes = append(b.deletes, k)
		applied = append(applied, admin.Applied{Kind: string(k.Kind), Namespace: k.Namespace, Name: k.Name, Action: admin.ActionDeleted})
	}
	return applied, b, created
}

func (s *Store) write(b batch, created map[model.Key]time.Time) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		objs, meta := tx.Bucket(bucketObjects), tx.Bucket(bucketMeta)
		for _, o := range b.puts {
			v, err := json.Marshal(record{Revision: b.revision, Created: created[o.Key], Object: o.Raw})
			if err != nil {
				return err
			}
			if err := objs.Put(diskKey(o.Key), v); err != nil {
				return err
			}
		}
		for _, k := range b.deletes {
			if err := objs.Delete(diskKey(k)); err != nil {
				return err
			}
		}
		return meta.Put(keyRevision, binary.BigEndian.AppendUint64(nil, b.revision))
	})
}

// publish makes a written batch visible.
func (s *Store) publish(b batch) {
	s.revision = b.revision
	for _, o := range b.puts {
		s.objects[o.Key] = Entry{Object: o, Revision: b.revision}
	}
	for _, k := range b.deletes {
		delete(s.objects, k)
	}
	s.history = append(s.history, b)
	if n := len(s.history) - s.settings.History; n > 0 {
		s.history = slices.Delete(s.history, 0, n)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Get returns one object.
func (s *Store) Get(k model.Key) (Entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[k]
	return e, ok
}

// List returns all objects sorted by kind, namespace and name, and the revision that they are of.
func (s *Store) List() ([]Entry, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sorted(), s.revision
}

func (s *Store) sorted() []Entry {
	out := make([]Entry, 0, len(s.objects))
	for _, e := range s.objects {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return strings.Compare(string(diskKey(a.Object.Key)), string(diskKey(b.Object.Key)))
	})
	return out
}

// Revision is that of the last transaction.
func (s *Store) Revision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}
