// Package podspec reads a Kubernetes Deployment as the local runtime runs it:
// every container's command as a process in the pod's network namespace.
//
// It is strict. [Validate] refuses each field that is set and has no meaning
// for a local process by its name, with what to use instead. Three fields are
// accepted and have no effect, so that one manifest serves a cluster and a
// laptop: image, imagePullPolicy and resources (a local process uses the
// machine's files and has no limits of its own).
//
// The package is pure: values in, values out.
package podspec

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
)

// Problem is one reason why a Deployment cannot run here.
type Problem struct {
	Field   string // "spec.template.spec.containers[0].command"
	Value   string // what was found, shortened; may be empty
	Message string // what is wrong
	Hint    string // what would be right
}

// Error is the problem in one line.
func (p Problem) Error() string {
	s := p.Field + ": "
	if p.Value != "" {
		s += fmt.Sprintf("%q: ", p.Value)
	}
	s += p.Message
	if p.Hint != "" {
		s += ": " + p.Hint
	}
	return s
}

// Validate lists everything that keeps the Deployment from running here, in
// the order of the fields' names. Nil means that all of it will be honoured.
func Validate(d *appsv1.Deployment) []Problem {
	_, problems := Parse(d)
	return problems
}

// Parse turns a Deployment into what the runtime runs. The Spec is valid only
// when there are no problems.
func Parse(d *appsv1.Deployment) (Spec, []Problem) {
	problems := unsupported(d)
	p := parser{}
	spec := p.deployment(d)
	problems = append(problems, p.problems...)
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.Field, b.Field) })
	// A field that is refused by name needs no second message.
	problems = slices.CompactFunc(problems, func(a, b Problem) bool { return a.Field == b.Field })
	return spec, problems
}

// short cuts a value for a message.
func short(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
