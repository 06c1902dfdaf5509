package file

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/model"
)

// state is what Run knows of the files. It belongs to Run's goroutine.
type state struct {
	s      *Source
	access []admin.Diagnostic // what could not be read in the last scan
	files  map[string]*tracked
	holds  map[model.Key]string // what the sink holds: the raw form
}

// tracked is one file.
type tracked struct {
	name    string
	text    string // as last read
	objects []convert.Object
	diags   []admin.Diagnostic // of decoding text
	bad     bool               // text has errors by itself
	good    []convert.Object   // in force
	goodOf  string             // the text that good came from
	isGood  bool               // goodOf is set
}

func newState(s *Source) *state {
	return &state{s: s, files: map[string]*tracked{}, holds: map[model.Key]string{}}
}

// watch asks for notices about directories that are not watched yet: those given, and the parents of files given.
func (st *state) watch(w *fsnotify.Watcher) {
	alive := map[string]bool{}
	for _, d := range w.WatchList() {
		alive[d] = true
	}
	for _, p := range st.s.settings.Paths {
		dir := p
		if info, err := os.Stat(p); err != nil || !info.IsDir() {
			dir = filepath.Dir(p)
		}
		if !alive[dir] {
			_ = w.Add(dir) // the periodic scan finds changes where notices cannot be had
		}
	}
}

// scan reads all files, decides which of them are in force and tells the sink.
// Without a change and unless it must, it leaves everything as it is.
func (st *state) scan(sink source.Sink, must bool) {
	names, problems := st.names()
	for name := range st.files {
		if !slices.Contains(names, name) {
			delete(st.files, name)
			must = true
		}
	}
	lost := map[string]bool{} // directories, for which one message is enough
	for _, p := range problems {
		lost[filepath.Clean(p.File)] = true
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		known := st.files[n] != nil
		changed, p := st.read(n)
		if p != nil && gone(n) && !lost[filepath.Dir(n)] {
			// It went between listing and reading: it is removed, not unreadable.
			delete(st.files, n)
			must = must || known
			return true
		}
		must = must || changed
		if p != nil && !lost[filepath.Dir(n)] {
			problems = append(problems, *p)
		}
		return false
	})
	if !must && slices.Equal(st.access, problems) {
		return
	}
	st.access = slices.Clone(problems)
	problems = append(problems, st.decide(names)...)
	st.deliver(sink, names)
	st.s.report(problems)
}

func gone(name string) bool {
	_, err := os.Lstat(name)
	return errors.Is(err, os.ErrNotExist)
}

// names lists the files there are, in order of the paths. Files of a directory that cannot be listed stay.
func (st *state) names() ([]string, []admin.Diagnostic) {
	var names []string
	var problems []admin.Diagnostic
	add := func(n string) {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, p := range st.s.settings.Paths {
		info, err := os.Stat(p)
		switch {
		case err == nil && !info.IsDir():
			add(p)
			continue
		case err == nil:
			var found []string
			if found, err = list(p); err == nil {
				for _, n := range found {
					add(n)
				}
				continue
			}
		case st.files[p] != nil && !gone(filepath.Dir(p)): // a file that was removed
			continue
		case st.files[p] != nil: // its folder went: a disk was unmounted, or worse
			dir := filepath.Dir(p)
			if !slices.ContainsFunc(problems, func(d admin.Diagnostic) bool { return d.File == dir }) {
				problems = append(problems, unreadable(dir, err))
			}
			add(p)
			continue
		}
		problems = append(problems, unreadable(p, err))
		for _, n := range sortedNames(st.files) {
			if filepath.Dir(n) == filepath.Clean(p) {
				add(n)
			}
		}
	}
	return names, problems
}

func unreadable(name string, err error) admin.Diagnostic {
	return admin.Diagnostic{Severity: admin.SeverityError, Code: convert.CodeUnreadableFile, File: name, Message: "cannot be read: " + cause(err).Error(),
		Hint: "what was read of it before stays in force"}
}

func sortedNames(m map[string]*tracked) []string {
	out := make([]string, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// read reads one file, and decodes it if its text has changed.
func (st *state) read(name string) (changed bool, problem *admin.Diagnostic) {
	t := st.files[name]
	text, err := read(name)
	if err != nil {
		if t == nil {
			st.files[name] = &tracked{name: name, bad: true}
		}
		p := unreadable(name, err)
		return false, &p
	}
	if t == nil {
		t = &tracked{name: name}
		st.files[name] = t
	} else if t.text == text && !(t.bad && len(t.diags) == 0) {
		return false, nil
	}
	t.text = text
	t.objects, t.diags = convert.Decode(admin.File{Name: name, Content: text}, st.s.settings.Options)
	t.bad = convert.HasErrors(t.diags)
	return true, nil
}

// decide finds the largest set of new files that is good together with all
// others, puts it into force and returns what is wrong with the rest. Each
// round takes at least one file back to its last good state, so it ends.
func (st *state) decide(names []string) []admin.Diagnostic {
	var problems []admin.Diagnostic
	trying := map[string]bool{} // files whose new text is a candidate
	for _, n := range names {
		t := st.files[n]
		problems = append(problems, t.diags...)
		if !t.bad && (!t.isGood || t.goodOf != t.text) {
			trying[n] = true
		}
	}
	standing := map[admin.Diagnostic]bool{} // wrong anyhow, because of something outside these files
	for _, d := range st.check(names, nil) {
		standing[d] = true
	}
	for {
		diags := append(st.duplicates(names, trying), st.check(names, trying)...)
		back, stuck := blame(diags, trying, standing)
		if len(back) == 0 && stuck {
			back = st.suspects(names, trying, standing)
		}
		if len(back) == 0 {
			problems = append(problems, diags...)
			break
		}
		for _, d := range diags {
			if d.Severity == admin.SeverityError && !standing[d] {
				problems = append(problems, d)
			}
		}
		for n := range back {
			delete(trying, n)
		}
	}
	for n := range trying {
		t := st.files[n]
		t.good, t.goodOf, t.isGood = t.objects, t.text, true
	}
	return problems
}

// blame names the candidates with an error. stuck tells that they break an
// object in a file that is none of them.
func blame(diags []admin.Diagnostic, trying map[string]bool, standing map[admin.Diagnostic]bool) (back map[string]bool, stuck bool) {
	back = map[string]bool{}
	for _, d := range diags {
		if d.Severity != admin.SeverityError {
			continue
		}
		if trying[d.File] {
			back[d.File] = true
		} else if !standing[d] {
			stuck = true
		}
	}
	return back, stuck
}

// suspects finds the candidate that breaks an object elsewhere by leaving each
// out in turn; if no single one does, or there are many, all of them wait.
func (st *state) suspects(names []string, trying map[string]bool, standing map[admin.Diagnostic]bool) map[string]bool {
	const many = 64
	if len(trying) > many {
		return maps.Clone(trying)
	}
	for _, n := range slices.Sorted(maps.Keys(trying)) {
		without := maps.Clone(trying)
		delete(without, n)
		if _, stuck := blame(st.check(names, without), without, standing); !stuck {
			return map[string]bool{n: true}
		}
	}
	return maps.Clone(trying)
}

// of gives the objects of a file under a candidate.
func (st *state) of(n string, trying map[string]bool) []convert.Object {
	if trying[n] {
		return st.files[n].objects
	}
	return st.files[n].good
}

// duplicates refuses objects that two files have; files in force and earlier names win.
func (st *state) duplicates(names []string, trying map[string]bool) []admin.Diagnostic {
	owner := map[model.Key]string{}
	for _, n := range names {
		if !trying[n] {
			for _, o := range st.files[n].good {
				owner[o.Key] = n
			}
		}
	}
	var out []admin.Diagnostic
	for _, n := range names {
		if !trying[n] {
			continue
		}
		for _, o := range st.files[n].objects {
			if other, dup := owner[o.Key]; dup && other != n {
				out = append(out, o.Diagnostic(admin.SeverityError, convert.CodeDuplicateObject, "metadata.name", o.Key.Name, "the object is in "+other+" too", "keep one of them"))
				continue
			}
			owner[o.Key] = n
		}
	}
	return out
}

// check asks the caller's judge about all objects of the files under a
// candidate, and about what the sink holds and would lose.
func (st *state) check(names []string, trying map[string]bool) []admin.Diagnostic {
	if st.s.settings.Check == nil {
		return nil
	}
	var all []convert.Object
	seen := map[model.Key]bool{}
	for _, n := range names {
		for _, o := range st.of(n, trying) {
			if !seen[o.Key] {
				seen[o.Key] = true
				all = append(all, o)
			}
		}
	}
	_, deleted := st.difference(names, trying)
	return st.s.settings.Check(all, deleted)
}

// difference is what a candidate changes for the sink.
func (st *state) difference(names []string, trying map[string]bool) (changed []convert.Object, deleted []model.Key) {
	now := map[model.Key]bool{}
	for _, n := range names {
		for _, o := range st.of(n, trying) {
			if now[o.Key] {
				continue
			}
			now[o.Key] = true
			if raw, held := st.holds[o.Key]; !held || raw != string(o.Raw) {
				changed = append(changed, o)
			}
		}
	}
	for k := range st.holds {
		if !now[k] {
			deleted = append(deleted, k)
		}
	}
	slices.SortFunc(deleted, compare)
	return changed, deleted
}

func compare(a, b model.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// deliver tells the sink about what is in force now.
func (st *state) deliver(sink source.Sink, names []string) {
	changed, deleted := st.difference(names, nil)
	for _, o := range changed {
		st.holds[o.Key] = string(o.Raw)
	}
	for _, k := range deleted {
		delete(st.holds, k)
	}
	if len(changed) > 0 {
		sink.Put(changed...)
	}
	if len(deleted) > 0 {
		sink.Delete(deleted...)
	}
}
