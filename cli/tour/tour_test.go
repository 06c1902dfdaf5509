package tour

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/samples/bookinfo"
)

// fakeMesh applies everything and serves one version to everybody.
type fakeMesh struct {
	version string
	applied []string
	results string // more of what the client prints
	err     error
}

func (f *fakeMesh) Apply(_ context.Context, files []admin.File) error {
	for _, x := range files {
		f.applied = append(f.applied, x.Name)
	}
	return f.err
}
func (f *fakeMesh) Delete(_ context.Context, _ []admin.File) error { return nil }
func (f *fakeMesh) Load(context.Context, string) (*Page, error) {
	return &Page{Status: 200, Reviews: f.version, Took: time.Millisecond}, nil
}
func (f *fakeMesh) Exec(context.Context, string, string, ...string) (*Output, error) {
	return &Output{Stdout: `{"statuses":{"200":5},"errors":{}` + f.results + `}`}, nil
}
func (f *fakeMesh) Metrics(context.Context, string, string) (Metrics, error) {
	return ParseMetrics(strings.NewReader(`istio_requests_total{reporter="destination",connection_security_policy="mutual_tls",source_principal="spiffe://cluster.local/ns/default/sa/sleep"} 5
`))
}
func (f *fakeMesh) Ready(context.Context) error { return nil }

// notes writes the tour down.
type notes struct{ ok, bad, errs, seen []string }

func (n *notes) Step(context.Context, int, int, *Step) error { return nil }
func (n *notes) Applied(string, string)                      {}
func (n *notes) Expect(what, _, got string, ok bool) {
	n.seen = append(n.seen, got)
	if ok {
		n.ok = append(n.ok, what)
	} else {
		n.bad = append(n.bad, what)
	}
}
func (n *notes) Done(err error) {
	if err != nil {
		n.errs = append(n.errs, err.Error())
	}
}

func walk(t *testing.T, m Mesh, steps []*Step) (Result, *notes) {
	t.Helper()
	n := &notes{}
	res, err := (&Run{Mesh: m, Manifests: bookinfo.Manifests, Report: n}).Walk(context.Background(), steps)
	if err != nil {
		t.Fatal(err)
	}
	return res, n
}

func TestAMeshThatIgnoresItsRoutesFailsTheTour(t *testing.T) {
	steps := Steps()[:3] // three versions, all to v1, jason to v2
	res, n := walk(t, &fakeMesh{version: "v1"}, steps)
	if len(res.Failures) != 2 || len(n.bad) != 2 {
		t.Fatalf("%+v, not held: %v; want the three versions and jason's v2 not to hold", res, n.bad)
	}
	if got, want := res.Failures[1].String(), "One user to v2: reviews for jason: expected only v2, seen v1 ×15"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if res.Steps != 3 || res.Checks != 4 {
		t.Errorf("%+v", res)
	}
}

func TestAComparisonOfCallsThatFailsShowsTheBadAnswer(t *testing.T) {
	m := &fakeMesh{results: `,"results":[{"status":200,"body":"fine"},{"status":503,"body":"no healthy upstream"}]`}
	r := &Run{Mesh: m, Manifests: bookinfo.Manifests, Report: &notes{}}
	if err := retries(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	seen := r.Report.(*notes).seen
	if want := `200 ×5 (call 2: 503 "no healthy upstream")`; len(seen) != 2 || seen[0] != want || seen[1] != want {
		t.Errorf("%q, want twice %q", seen, want)
	}
}

func TestAStepThatCannotRunCountsAsFailed(t *testing.T) {
	res, n := walk(t, &fakeMesh{err: errors.New("no control plane")}, Steps()[1:2])
	if len(res.Failures) != 1 || res.Failures[0].String() != "All traffic to v1: stopped: no control plane" || len(n.errs) != 1 || !strings.Contains(n.errs[0], "no control plane") {
		t.Errorf("%+v, %v", res, n.errs)
	}
}

func TestEveryManifestThatStepsNameExists(t *testing.T) {
	m := &fakeMesh{version: "v1"}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, s := range Steps() {
		for _, f := range append(append([]string{}, s.Undo...), s.Redo...) {
			if _, err := fs.Stat(bookinfo.Manifests, f); err != nil {
				t.Errorf("%s: %v", s.Title, err)
			}
		}
		if strings.Contains(s.Title, "Mirror") || strings.Contains(s.Title, "Circuit") {
			continue // they wait for metrics, which the end-to-end test has
		}
		r := &Run{Mesh: m, Manifests: bookinfo.Manifests, Report: &notes{}}
		if err := s.Run(ctx, r); err != nil {
			t.Errorf("%s: %v", s.Title, err)
		}
	}
}

func TestSumAddsWhatFits(t *testing.T) {
	m, err := ParseMetrics(strings.NewReader(`# TYPE c counter
c{a="1",b="x"} 2
c{a="1",b="y"} 3
c{a="2",b="x"} 5
`))
	if err != nil {
		t.Fatal(err)
	}
	for want, labels := range map[float64]map[string]string{10: nil, 5: {"a": "1"}, 7: {"b": "x"}, 2: {"a": "1", "b": "x"}, 0: {"c": "1"}} {
		if got := m.Sum("c", labels); got != want {
			t.Errorf("sum of %v = %v, want %v", labels, got, want)
		}
	}
	if got := fmt.Sprint(counts{"200": 3, "503": 1}); got != "200 ×3, 503 ×1" {
		t.Error(got)
	}
}
