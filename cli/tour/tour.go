// Package tour walks through a mesh's classic tasks with Bookinfo: it changes
// configuration, looks at what the services then do, and compares that with
// what should be. The same steps serve a person (explained, one at a time) and
// a check without one.
//
// It sees the mesh only through [Mesh], the way a user does: apply a file, load
// a page, run a program in a pod, read a proxy's metrics.
package tour

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"time"

	"weft.mesh/weft/api/admin"
)

// Mesh is a running mesh.
type Mesh interface {
	// Apply stores manifests and returns when every proxy has them.
	Apply(ctx context.Context, files []admin.File) error
	// Delete removes what manifests hold and returns when every proxy knows.
	Delete(ctx context.Context, files []admin.File) error
	// Load gets the product page from outside, signed in as user ("" for nobody).
	Load(ctx context.Context, user string) (*Page, error)
	// Exec runs a program in a pod of a Deployment.
	Exec(ctx context.Context, namespace, deployment string, command ...string) (*Output, error)
	// Metrics reads the metrics of the sidecars of a Deployment, added up.
	Metrics(ctx context.Context, namespace, deployment string) (Metrics, error)
	// Ready waits until all pods of all Deployments are ready and no old ones are left.
	Ready(ctx context.Context) error
}

// Page is the product page as a browser gets it.
type Page struct {
	Status  int
	Body    string
	Reviews string // version that answered: v1, v2, v3; "" if none did
	Took    time.Duration
}

// Output is what a program printed.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// Reporter shows the tour to a person or writes it down.
type Reporter interface {
	// Step begins; it returns an error to stop the tour.
	Step(ctx context.Context, n, of int, s *Step) error
	// Applied tells which manifest was applied or removed.
	Applied(verb, file string)
	// Expect reports one comparison.
	Expect(what, want, got string, ok bool)
	// Done ends the step.
	Done(err error)
}

// Step is one task.
type Step struct {
	Title   string
	Explain string // what it shows, for a person
	Try     string // what a person may try meanwhile
	Run     func(ctx context.Context, r *Run) error
	Undo    []string // manifests removed afterwards
	Redo    []string // manifests applied afterwards
}

// Run is what a step works with.
type Run struct {
	Mesh      Mesh
	Manifests fs.FS // samples/bookinfo
	Report    Reporter
	checks    int
	failures  []Failure
	step      string // title of the step that runs
	bad       string // the first answer of the newest calls that was an error, and its place among them
}

// Result of a whole tour.
type Result struct {
	Steps, Checks int
	Failures      []Failure // in the order they came
}

// Failure is a comparison that did not hold, or an error that kept a step from its end.
type Failure struct {
	Step            string // title
	What, Want, Got string // Want is empty for an error
}

func (f Failure) String() string {
	if f.Want == "" {
		return fmt.Sprintf("%s: %s: %s", f.Step, f.What, f.Got)
	}
	return fmt.Sprintf("%s: %s: expected %s, seen %s", f.Step, f.What, f.Want, f.Got)
}

// Walk runs steps in order. A step that fails does not stop the tour: the
// result counts it. Errors of ctx and of the reporter stop it.
func (r *Run) Walk(ctx context.Context, steps []*Step) (Result, error) {
	var res Result
	for i, s := range steps {
		if err := r.Report.Step(ctx, i+1, len(steps), s); err != nil {
			return res, err
		}
		r.step = s.Title
		err := s.Run(ctx, r)
		if err == nil {
			err = r.undo(ctx, s)
		} else if e := r.undo(ctx, s); e != nil {
			err = fmt.Errorf("%w; and cleaning up: %w", err, e)
		}
		if err != nil {
			r.failures = append(r.failures, Failure{Step: s.Title, What: "stopped", Got: err.Error()})
		}
		r.Report.Done(err)
		res = Result{Steps: i + 1, Checks: r.checks, Failures: r.failures}
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
	}
	return res, nil
}

func (r *Run) undo(ctx context.Context, s *Step) error {
	if len(s.Undo) > 0 {
		if err := r.Remove(ctx, s.Undo...); err != nil {
			return err
		}
	}
	if len(s.Redo) > 0 {
		return r.Apply(ctx, s.Redo...)
	}
	return nil
}

// Apply stores manifests of the sample, by path, and waits for the proxies.
func (r *Run) Apply(ctx context.Context, names ...string) error {
	files, err := r.files(names)
	if err != nil {
		return err
	}
	for _, n := range names {
		r.Report.Applied("apply", n)
	}
	return r.Mesh.Apply(ctx, files)
}

// Remove deletes what manifests hold, and waits for the proxies.
func (r *Run) Remove(ctx context.Context, names ...string) error {
	files, err := r.files(names)
	if err != nil {
		return err
	}
	for _, n := range names {
		r.Report.Applied("delete", n)
	}
	return r.Mesh.Delete(ctx, files)
}

func (r *Run) files(names []string) ([]admin.File, error) {
	var out []admin.File
	for _, n := range names {
		b, err := fs.ReadFile(r.Manifests, n)
		if err != nil {
			return nil, err
		}
		out = append(out, admin.File{Name: path.Join("samples/bookinfo", n), Content: string(b)})
	}
	return out, nil
}

// Expect compares and reports.
func (r *Run) Expect(what, want, got string, ok bool) {
	r.checks++
	if !ok {
		if r.bad != "" {
			got += " (" + r.bad + ")"
		}
		r.failures = append(r.failures, Failure{r.step, what, want, got})
	}
	r.bad = ""
	r.Report.Expect(what, want, got, ok)
}

// patience is how long eventually looks: it holds within a moment, unless the machine is very busy.
const patience = 30 * time.Second

// eventually looks until what is seen holds, for what needs a moment to be
// noticed (a metric is counted after its response), and reports the last look.
func (r *Run) eventually(ctx context.Context, what, want string, look func() (got string, ok bool, err error)) error {
	deadline := time.Now().Add(patience)
	for {
		got, ok, err := look()
		if err != nil {
			return err
		}
		if ok || time.Now().After(deadline) {
			r.Expect(what, want, got, ok)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
