package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft.mesh/weft/api/admin"
)

// plane answers the n-th connection to each path with the n-th script; after
// the last it holds connections open.
type plane struct {
	scripts map[string][]string
	calls   map[string]int
	hold    chan struct{}
}

func serve(t *testing.T, scripts map[string][]string) *Client {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, admin.SocketControl))
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{scripts: scripts, calls: map[string]int{}, hold: make(chan struct{})}
	srv := &http.Server{Handler: p}
	go srv.Serve(ln)
	t.Cleanup(func() { close(p.hold); srv.Close() })
	return New(dir)
}

func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := p.calls[r.URL.Path] // one caller for each path
	p.calls[r.URL.Path]++
	if n >= len(p.scripts[r.URL.Path]) {
		<-p.hold
		return
	}
	script := p.scripts[r.URL.Path][n]
	if code, body, ok := strings.Cut(script, "!"); ok {
		var status int
		fmt.Sscan(code, &status)
		w.WriteHeader(status)
		script = body
	}
	fmt.Fprint(w, script)
	http.NewResponseController(w).Flush()
}

func line(typ admin.EventType, name string) string {
	e := admin.Event{Type: typ}
	if name != "" {
		e.Object = &admin.Object{Kind: "Deployment", Namespace: "default", Name: name}
	}
	b, _ := json.Marshal(e)
	return string(b) + "\n"
}

func TestWatchObjects(t *testing.T) {
	const put, del, synced = admin.EventPut, admin.EventDelete, admin.EventSynced
	tests := []struct {
		name    string
		streams []string
		want    []string
	}{
		{"nothing is reported before everything was sent", []string{line(put, "a") + line(put, "b")}, nil},
		{"then all at once, and every change", []string{line(put, "a") + line(put, "b") + line(synced, "") + line(del, "a") + line(put, "c")}, []string{"a b", "b", "b c"}},
		{"an empty control plane is a report too", []string{line(synced, "")}, []string{""}},
		{"a lost stream reports nothing until the next is complete",
			[]string{line(put, "a") + line(synced, ""), line(put, "x"), line(put, "a") + line(put, "d") + line(synced, "")}, []string{"a", "a d"}},
		{"an error is tried again", []string{"503!" + `{"error":"not yet"}`, line(put, "a") + line(synced, "")}, []string{"a"}},
		{"nonsense is a lost stream", []string{"what?\n", `{"type":"PUT"}` + "\n", `{"type":"ODD","object":{}}` + "\n", line(put, "a") + line(synced, "")}, []string{"a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, map[string][]string{admin.PathObjects: append(tt.streams, line(put, "end")+line(synced, ""))})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []string
			c.WatchObjects(ctx, []string{"Deployment"}, func(o Objects) {
				var names []string
				for _, ref := range slices.SortedFunc(maps.Keys(o), func(a, b admin.ObjectRef) int { return strings.Compare(a.Name, b.Name) }) {
					names = append(names, ref.Name)
				}
				if s := strings.Join(names, " "); s == "end" {
					cancel()
				} else {
					got = append(got, s)
				}
			}, nil)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTokenAndRoot(t *testing.T) {
	c := serve(t, map[string][]string{
		admin.PathTokens: {`{"token":"abc"}`, "403!" + `{"error":"no such service account"}`, `{}`},
		admin.PathRoot:   {"-----BEGIN CERTIFICATE-----\n", "oops"},
	})
	if tok, err := c.Token(t.Context(), "default", "sa"); tok != "abc" || err != nil {
		t.Errorf("token %q, %v", tok, err)
	}
	if _, err := c.Token(t.Context(), "default", "sa"); err == nil || !strings.Contains(err.Error(), "no such service account") {
		t.Errorf("refused: %v", err)
	}
	if _, err := c.Token(t.Context(), "default", "sa"); err == nil {
		t.Error("an answer without a token is taken")
	}
	if _, err := c.Root(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Root(t.Context()); err == nil {
		t.Error("roots without a certificate are taken")
	}
}

func TestNoControlPlane(t *testing.T) {
	c := New(t.TempDir())
	if _, err := c.Root(t.Context()); err == nil || !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), admin.SocketControl) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.WatchNames(ctx, func(admin.NameTable) { t.Error("reported") }, nil)
}
