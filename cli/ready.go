package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
)

const (
	readyPoll  = 100 * time.Millisecond
	readyCalm  = 5                // looks in a row that must find nothing left to wait for
	readyHurry = 10 * time.Second // how often it is said what is waited for
)

// announce tells on standard error when everything runs, or what it waits for,
// and then leaves the mesh alone until ctx ends.
func (m *mesh) announce(ctx context.Context) error {
	began := time.Now()
	client := &meshClient{app: m.app}
	calm, told, last := 0, "", began
	for calm < readyCalm {
		if !sleepFor(ctx, readyPoll) {
			return nil
		}
		pods, err := client.pods(ctx)
		var st *admin.ControlStatus
		if err == nil {
			st, err = m.app.mesh().Status(ctx)
		}
		waiting := unsettled(pods)
		if err != nil || len(waiting) > 0 {
			calm = 0
			if s := strings.Join(names(waiting), ", "); s != "" && s != told && time.Since(last) > readyHurry {
				told, last = s, time.Now()
				m.say("waiting for %s; see weft ps", s)
			}
			continue
		}
		if calm++; calm == readyCalm {
			m.running(len(pods), st.Problems, time.Since(began))
		}
	}
	<-ctx.Done()
	return nil
}

// running says that the mesh runs, and what of the configuration does not.
func (m *mesh) running(pods int, problems []admin.Diagnostic, took time.Duration) {
	c := m.app.colors(m.app.env.Stderr)
	m.say("%s in %.1f s: %s; weft ps lists them, Ctrl-C ends", c.green("ready"), took.Seconds(), plural(pods, "pod"))
	if m.ingress {
		m.say("ingress: %s", c.bold(hostURL(m.opts.ingress)))
	}
	m.say("console: %s", c.bold(hostURL(m.opts.console)))
	if n := countErrors(problems); n > 0 {
		m.say("%s", c.red(plural(n, "error")+" in the configuration: see weft status"))
	}
}

func (m *mesh) say(format string, args ...any) {
	fmt.Fprintf(m.app.env.Stderr, format+"\n", args...)
}

// names leaves only the first word, the pod's name, of what unsettled tells.
func names(waiting []string) []string {
	var out []string
	for _, w := range waiting {
		name, _, _ := strings.Cut(w, " ")
		out = append(out, name)
	}
	return out
}
