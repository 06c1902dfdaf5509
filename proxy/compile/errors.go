package compile

import (
	"errors"
	"fmt"
	"strings"

	"weft.mesh/weft/xds"
)

// Refusal is why one resource was not taken. It becomes one line of the NACK.
type Refusal struct {
	TypeURL string
	Name    string // of the resource; "" if the resource has none
	Reason  string // field path, value, cause and fix
}

// String names the resource and the reason: `CDS "outbound|80||api": lb_policy: …`.
func (r Refusal) String() string {
	return fmt.Sprintf("%s %q: %s", xds.ShortName(r.TypeURL), r.Name, r.Reason)
}

// maxNACK bounds the text of a NACK in bytes, so that a thousand bad
// resources do not make a message the server refuses.
const maxNACK = 8 << 10

// NACK is the error detail for a set of refusals, "" if there are none.
func NACK(rs []Refusal) string {
	var b strings.Builder
	for i, r := range rs {
		s := r.String()
		if b.Len()+len(s) > maxNACK {
			fmt.Fprintf(&b, "; and %d more", len(rs)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(s)
	}
	return b.String()
}

// fieldError is a refusal below a resource: where, and what is wrong there.
type fieldError struct {
	path string
	err  error
}

func (e *fieldError) Error() string {
	if e.path == "" {
		return e.err.Error()
	}
	return e.path + ": " + e.err.Error()
}

func (e *fieldError) Unwrap() error { return e.err }

// at prefixes the path of err; nil stays nil.
func at(path string, err error) error {
	if err == nil {
		return nil
	}
	var f *fieldError
	if errors.As(err, &f) && f == err { //nolint:errorlint // only the outermost is extended
		sep := "."
		if f.path == "" || strings.HasPrefix(f.path, "[") {
			sep = ""
		}
		return &fieldError{path + sep + f.path, f.err}
	}
	return &fieldError{path, err}
}

// index prefixes path[i].
func index(path string, i int, err error) error {
	if err == nil {
		return nil
	}
	return at(fmt.Sprintf("%s[%d]", path, i), err)
}

// bad says that a field's value cannot be honoured.
func bad(path string, value any, format string, args ...any) error {
	return &fieldError{path, fmt.Errorf("value %s: %s", quote(value), fmt.Sprintf(format, args...))}
}

// missing says that a field must be set.
func missing(path, format string, args ...any) error {
	return &fieldError{path, fmt.Errorf("not set: %s", fmt.Sprintf(format, args...))}
}

// quote prints a value within bounds.
func quote(v any) string {
	s := fmt.Sprint(v)
	if len(s) > 120 {
		s = s[:117] + "..."
	}
	return fmt.Sprintf("%q", s)
}
