package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
)

// colors paints text, or leaves it alone when the output is not a terminal.
type colors struct{ on bool }

func (a *app) colors(f *os.File) colors {
	return colors{on: !a.noColor && term.IsTerminal(int(f.Fd()))}
}

func (c colors) paint(code, s string) string {
	if !c.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (c colors) red(s string) string    { return c.paint("31", s) }
func (c colors) green(s string) string  { return c.paint("32", s) }
func (c colors) yellow(s string) string { return c.paint("33", s) }
func (c colors) bold(s string) string   { return c.paint("1", s) }
func (c colors) dim(s string) string    { return c.paint("2", s) }

// data prints v as -o asks; table is called for the human form.
func (a *app) data(v any, table func() error) error {
	switch a.output {
	case "json":
		enc := json.NewEncoder(a.out())
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = a.out().Write(b)
		return err
	}
	return table()
}

// table prints aligned columns. Cells may be painted: widths count what is seen.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer, c colors) error {
	width := make([]int, len(t.head))
	for i, h := range t.head {
		width[i] = len(h)
	}
	for _, r := range t.rows {
		for i, cell := range r {
			width[i] = max(width[i], visible(cell))
		}
	}
	line := func(cells []string, paint func(string) string) error {
		var b strings.Builder
		for i, cell := range cells {
			b.WriteString(paint(cell))
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-visible(cell)+3))
			}
		}
		_, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
		return err
	}
	if err := line(t.head, c.dim); err != nil {
		return err
	}
	for _, r := range t.rows {
		if err := line(r, func(s string) string { return s }); err != nil {
			return err
		}
	}
	return nil
}

// visible is the width of a cell without escape sequences.
func visible(s string) int {
	n := 0
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return n + utf8.RuneCountInString(s)
		}
		n += utf8.RuneCountInString(s[:i])
		j := strings.IndexByte(s[i:], 'm')
		if j < 0 {
			return n
		}
		s = s[i+j+1:]
	}
}

// age is how long ago, as kubectl writes it.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// diagnostics prints what a check found, errors first seen first, and tells
// how many errors there were.
func (a *app) diagnostics(w *os.File, ds []admin.Diagnostic) (errors int) {
	c := a.colors(w)
	for _, d := range ds {
		label := c.yellow("warning:")
		if d.Severity == admin.SeverityError {
			label = c.red("error:")
			errors++
		}
		fmt.Fprintf(w, "%s%s %s %s\n", position(d), label, d.Message, c.dim("["+d.Code+"]"))
		if d.Object != "" || d.Field != "" {
			fmt.Fprintf(w, "    at   %s\n", strings.TrimSpace(d.Object+"  "+d.Field))
		}
		if d.Value != "" {
			fmt.Fprintf(w, "    got  %s\n", d.Value)
		}
		if d.Hint != "" {
			fmt.Fprintf(w, "    fix  %s\n", d.Hint)
		}
	}
	return errors
}

func position(d admin.Diagnostic) string {
	if d.File == "" {
		return ""
	}
	s := d.File + ":"
	if d.Line > 0 {
		s += fmt.Sprintf("%d:", d.Line)
		if d.Column > 0 {
			s += fmt.Sprintf("%d:", d.Column)
		}
	}
	return s + " "
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
