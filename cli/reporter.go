package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"weft.mesh/weft/cli/tour"
)

// errQuit ends a tour because the person wants to.
var errQuit = errors.New("quit")

// plainReporter writes the tour down, a line for each comparison.
type plainReporter struct{ app *app }

// Step implements tour.Reporter.
func (p *plainReporter) Step(_ context.Context, n, of int, s *tour.Step) error {
	c := p.app.colors(p.app.env.Stdout)
	p.app.printf("\n%s %s\n", c.dim(fmt.Sprintf("[%d/%d]", n, of)), c.bold(s.Title))
	return nil
}

// Applied implements tour.Reporter.
func (p *plainReporter) Applied(verb, file string) {
	c := p.app.colors(p.app.env.Stdout)
	p.app.printf("      %s\n", c.dim("weft "+verb+" -f samples/bookinfo/"+file))
}

// Expect implements tour.Reporter.
func (p *plainReporter) Expect(what, want, got string, ok bool) {
	c := p.app.colors(p.app.env.Stdout)
	mark := c.green("ok  ")
	if !ok {
		mark = c.red("FAIL")
	}
	p.app.printf("  %s  %s\n        expected  %s\n        seen      %s\n", mark, what, want, got)
}

// Done implements tour.Reporter.
func (p *plainReporter) Done(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		c := p.app.colors(p.app.env.Stdout)
		p.app.printf("  %s  %v\n", c.red("FAIL"), err)
	}
}

// guide explains each step to a person and waits for Enter.
type guide struct {
	plainReporter
	page string
	in   io.Reader
	keys chan string
}

// Step implements tour.Reporter.
func (g *guide) Step(ctx context.Context, n, of int, s *tour.Step) error {
	if g.keys == nil {
		g.keys = make(chan string)
		go g.read()
	}
	c := g.app.colors(g.app.env.Stdout)
	g.app.printf("\n%s\n%s %s\n\n%s\n", strings.Repeat("─", 72), c.dim(fmt.Sprintf("%d of %d", n, of)), c.bold(s.Title), wrap(s.Explain, 72))
	if s.Try != "" {
		g.app.printf("\n%s %s\n", c.green("Try:"), strings.ReplaceAll(s.Try, "http://localhost:8080/productpage", g.page))
	}
	g.app.printf("\n%s ", c.dim("Enter to do it, q to end:"))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case line, ok := <-g.keys:
		if !ok || strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "q") {
			return errQuit
		}
	}
	return nil
}

// read passes lines on; it ends with the input, or with the process.
func (g *guide) read() {
	defer close(g.keys)
	sc := bufio.NewScanner(g.in)
	for sc.Scan() {
		g.keys <- sc.Text()
	}
}

// wrap breaks text at spaces.
func wrap(s string, width int) string {
	var b strings.Builder
	n := 0
	for i, w := range strings.Fields(s) {
		if i > 0 && n+1+len(w) > width {
			b.WriteByte('\n')
			n = 0
		} else if i > 0 {
			b.WriteByte(' ')
			n++
		}
		b.WriteString(w)
		n += len(w)
	}
	return b.String()
}
