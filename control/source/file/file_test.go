package file_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source/file"
	"weft.mesh/weft/control/source/sourcetest"
	"weft.mesh/weft/model"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	tmp := filepath.Join(filepath.Dir(path), ".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func TestFilesKeepTheSourceContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		dir := t.TempDir()
		return sourcetest.Harness{
			Source: file.New(file.Settings{Paths: []string{dir}, Quiet: time.Millisecond}),
			Put:    func(t testing.TB, o convert.Object) { write(t, filepath.Join(dir, o.Key.Name+".json"), string(o.Raw)) },
			Delete: func(t testing.TB, k model.Key) {
				if err := os.Remove(filepath.Join(dir, k.Name+".json")); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

const (
	reviews = `apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{port: 9080, name: http}]}
`
	rule = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
`
	route = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
`
)

// fixture is a watched directory with the real checks.
type fixture struct {
	dir      string
	src      *file.Source
	rec      *sourcetest.Recorder
	problems chan []admin.Diagnostic
}

func start(t *testing.T, files map[string]string) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), problems: make(chan []admin.Diagnostic, 1000)}
	for n, text := range files {
		write(t, filepath.Join(f.dir, n), text)
	}
	f.src = file.New(file.Settings{Paths: []string{f.dir}, Quiet: time.Millisecond,
		Check: func(changed []convert.Object, deleted []model.Key) []admin.Diagnostic {
			return analyze.Check(nil, changed, deleted, analyze.Options{})
		},
		OnProblems: func(d []admin.Diagnostic) { f.problems <- d }})
	f.rec, _ = sourcetest.Start(t, f.src)
	return f
}

func (f *fixture) write(t *testing.T, name, text string) { write(t, filepath.Join(f.dir, name), text) }

// until waits until the problems hold exactly the codes.
func (f *fixture) until(t *testing.T, codes ...string) {
	t.Helper()
	deadline := time.After(sourcetest.Patience)
	for {
		select {
		case ds := <-f.problems:
			var got []string
			for _, d := range ds {
				if d.Severity == admin.SeverityError {
					got = append(got, d.Code+" "+filepath.Base(d.File))
				}
			}
			if strings.Join(got, ",") == strings.Join(codes, ",") {
				return
			}
		case <-deadline:
			t.Fatalf("problems never became %v; they are %+v", codes, f.src.Problems())
		}
	}
}

func TestABadFileKeepsItsLastGoodObjectsUntilItIsMended(t *testing.T) {
	f := start(t, map[string]string{"a.yaml": reviews})
	f.rec.UntilSynced()
	f.write(t, "a.yaml", strings.Replace(reviews, "9080", "no-port", 1))
	f.until(t, "wrong-type a.yaml")
	f.write(t, "a.yaml", strings.Replace(reviews, "9080", "9081", 1))
	if e := f.rec.Want("put Service default/reviews"); e.Put.ValueAt("spec.ports[0].port") != "9081" {
		t.Errorf("got %s", e.Put.Raw)
	}
	f.until(t)
}

func TestAReferenceToNothingWaitsForItsTarget(t *testing.T) {
	f := start(t, map[string]string{"a.yaml": reviews, "z.yaml": route})
	if got := f.rec.UntilSynced(); len(got) != 1 {
		t.Errorf("the route without its subset was delivered: %v", got)
	}
	f.until(t, "unknown-subset z.yaml")
	f.write(t, "b.yaml", rule)
	f.rec.Want("put DestinationRule default/reviews")
	f.rec.Want("put VirtualService default/reviews")
	f.until(t)
}

func TestAChangeThatBreaksAnotherFileWaits(t *testing.T) {
	f := start(t, map[string]string{"a.yaml": reviews, "b.yaml": rule, "c.yaml": route})
	f.rec.UntilSynced()
	f.write(t, "b.yaml", strings.ReplaceAll(rule, "v1}}", "v1}}\n  - {name: v2, labels: {version: v2}}"))
	f.rec.Want("put DestinationRule default/reviews")
	f.write(t, "b.yaml", strings.ReplaceAll(rule, "name: v1", "name: v9"))
	f.until(t, "unknown-subset c.yaml")
	f.write(t, "d.yaml", strings.ReplaceAll(reviews, "name: reviews", "name: other"))
	f.rec.Want("put Service default/other") // and b.yaml still waits
}

func TestARemovedFileTakesItsObjectsWithIt(t *testing.T) {
	f := start(t, map[string]string{"a.yaml": reviews, "b.yaml": rule})
	f.rec.UntilSynced()
	if err := os.Remove(filepath.Join(f.dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	f.rec.Want("delete DestinationRule default/reviews")
}

func TestTheSameObjectInTwoFilesIsRefusedInTheLaterOne(t *testing.T) {
	f := start(t, map[string]string{"a.yaml": reviews, "b.yaml": reviews})
	if got := f.rec.UntilSynced(); filepath.Base(got[sourcetest.Key("reviews")].File) != "a.yaml" {
		t.Errorf("got %v", got)
	}
	f.until(t, "duplicate-object b.yaml")
}

func TestAPodInAUsersDirectoryIsRefused(t *testing.T) {
	f := start(t, map[string]string{"p.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: evil}\nspec: {containers: [{name: c}]}\nstatus: {podIP: 10.0.0.1}\n"})
	if got := f.rec.UntilSynced(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	f.until(t, "unknown-kind p.yaml")
}

func TestSwappedSymlinksAreSeen(t *testing.T) {
	dir := t.TempDir()
	version := func(n, text string) {
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, n, "a.yaml"), text)
		if err := os.Symlink(n, filepath.Join(dir, ".new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", reviews)
	if err := os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	rec, _ := sourcetest.Start(t, file.New(file.Settings{Paths: []string{dir}, Quiet: time.Millisecond}))
	rec.UntilSynced()
	version("..2", strings.Replace(reviews, "9080", "9090", 1))
	if e := rec.Want("put Service default/reviews"); e.Put.ValueAt("spec.ports[0].port") != "9090" {
		t.Errorf("got %s", e.Put.Raw)
	}
}

func TestAnUnreadableDirectoryKeepsWhatItHad(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.yaml"), reviews)
	problems := make(chan []admin.Diagnostic, 100)
	rec, _ := sourcetest.Start(t, file.New(file.Settings{Paths: []string{dir}, Quiet: time.Millisecond, OnProblems: func(d []admin.Diagnostic) { problems <- d }}))
	rec.UntilSynced()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	select {
	case ds := <-problems:
		if len(ds) != 1 || ds[0].Code != convert.CodeUnreadableFile {
			t.Fatalf("got %+v", ds)
		}
	case e := <-rec.Events():
		t.Fatalf("got %s, want nothing taken away", e)
	}
}

func TestFilesWhoseFolderWentKeepWhatTheyHad(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "a.yaml")
	write(t, name, reviews)
	problems := make(chan []admin.Diagnostic, 100)
	rec, _ := sourcetest.Start(t, file.New(file.Settings{Paths: []string{name}, Quiet: time.Millisecond, Rescan: 20 * time.Millisecond, OnProblems: func(d []admin.Diagnostic) { problems <- d }}))
	rec.UntilSynced()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	select {
	case ds := <-problems:
		if len(ds) != 1 || ds[0].Code != convert.CodeUnreadableFile || ds[0].File != dir {
			t.Fatalf("got %+v", ds)
		}
	case e := <-rec.Events():
		t.Fatalf("got %s, want nothing taken away", e)
	}
}

func TestAMissingPathIsAnErrorAtTheStart(t *testing.T) {
	rec, stop := sourcetest.Start(t, file.New(file.Settings{Paths: []string{filepath.Join(t.TempDir(), "none.yaml")}}))
	_ = rec
	if err := stop(); err == nil || !strings.Contains(err.Error(), "none.yaml: no such file") {
		t.Errorf("got %v", err)
	}
}

func TestReadGivesTheFilesOfADirectoryInOrder(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"b.yml", "a.yaml", "c.json", ".hidden.yaml", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := file.Read([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Content)
	}
	if strings.Join(got, " ") != "a.yaml b.yml c.json" {
		t.Errorf("got %v", got)
	}
	if _, err := file.Read([]string{t.TempDir()}); err == nil {
		t.Error("an empty directory was accepted")
	}
}
