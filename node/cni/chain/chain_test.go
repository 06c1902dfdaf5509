package chain

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const bridge = `{"cniVersion":"1.0.0","name":"podnet","disableCheck":true,"plugins":[
 {"type":"bridge","ipam":{"type":"host-local","big":12345678901234567890}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`

func node(t *testing.T, files map[string]string) *Chain {
	t.Helper()
	dir := t.TempDir()
	c := &Chain{Program: filepath.Join(dir, "weft-node"), BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"),
		Type: "weft-cni", Entry: map[string]any{"type": "weft-cni", "socket": "/run/s"}}
	for _, d := range []string{c.BinDir, c.ConfDir} {
		check(t, os.Mkdir(d, 0o755))
	}
	check(t, os.WriteFile(c.Program, []byte("program 1"), 0o755))
	for name, text := range files {
		put(t, c, name, text)
	}
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, c *Chain, name, text string) {
	t.Helper()
	check(t, write(filepath.Join(c.ConfDir, name), []byte(text), 0o644))
}

// folder is what is in the folder of configurations.
func folder(t *testing.T, c *Chain) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(c.ConfDir)
	check(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(c.ConfDir, e.Name()))
		check(t, err)
		out[e.Name()] = string(b)
	}
	return out
}

// types are the plugins of a configuration, in their order.
func types(t *testing.T, c *Chain, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.ConfDir, name))
	check(t, err)
	l, err := parse(b, false)
	check(t, err)
	var out []string
	for _, p := range l.plugins {
		out = append(out, typeOf(p))
	}
	return strings.Join(out, " ")
}

func install(t *testing.T, c *Chain, want bool) {
	t.Helper()
	changed, err := c.Install()
	check(t, err)
	if changed != want {
		t.Errorf("changed = %t, want %t", changed, want)
	}
	check(t, c.Installed())
}

func TestInstallAndBack(t *testing.T) {
	before := map[string]string{"10-bridge.conflist": bridge, "20-other.conflist": strings.ReplaceAll(bridge, "podnet", "other"), "README": "not ours"}
	c := node(t, before)
	if err := c.Installed(); err == nil {
		t.Error("it is installed before it was")
	}
	install(t, c, true)
	if got := types(t, c, "10-bridge.conflist"); got != "bridge portmap weft-cni" {
		t.Errorf("plugins: %s", got)
	}
	now := folder(t, c)
	if now["20-other.conflist"] != before["20-other.conflist"] || !strings.Contains(now["10-bridge.conflist"], "12345678901234567890") || !strings.Contains(now["10-bridge.conflist"], "disableCheck") {
		t.Errorf("others were changed: %v", now)
	}
	if st, err := os.Stat(filepath.Join(c.ConfDir, "10-bridge.conflist")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if b, err := os.ReadFile(filepath.Join(c.BinDir, "weft-cni")); err != nil || string(b) != "program 1" {
		t.Errorf("program: %q, %v", b, err)
	}
	install(t, c, false)
	check(t, c.Uninstall())
	if d := cmp.Diff(before, folder(t, c)); d != "" {
		t.Errorf("what is left: -before +after:\n%s", d)
	}
	if _, err := os.Stat(filepath.Join(c.BinDir, "weft-cni")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program is left: %v", err)
	}
	check(t, c.Uninstall())
}

func TestASinglePluginBecomesAListAndBack(t *testing.T) {
	before := map[string]string{"10-a.conf": `{"cniVersion":"0.4.0","name":"a","type":"ptp","mtu":1400}`}
	c := node(t, before)
	install(t, c, true)
	now := folder(t, c)
	if _, there := now["10-a.conf"]; there || types(t, c, "10-a.conflist") != "ptp weft-cni" {
		t.Errorf("%v", now)
	}
	var l map[string]any
	check(t, json.Unmarshal([]byte(now["10-a.conflist"]), &l))
	if l["name"] != "a" || l["cniVersion"] != "0.4.0" {
		t.Errorf("the list: %v", l)
	}
	install(t, c, false)
	put(t, c, "10-a.conf", `{"cniVersion":"0.4.0","name":"a","type":"ptp","mtu":9000}`) // its owner writes it again
	install(t, c, true)
	if !strings.Contains(folder(t, c)["10-a.conflist"], "9000") {
		t.Error("its owner's change is lost")
	}
	check(t, c.Uninstall())
	if d := cmp.Diff(map[string]string{"10-a.conf": `{"cniVersion":"0.4.0","name":"a","type":"ptp","mtu":9000}`}, folder(t, c)); d != "" {
		t.Errorf("what is left: %s", d)
	}
}

func TestChangesOfOthers(t *testing.T) {
	c := node(t, map[string]string{"10-bridge.conflist": bridge})
	install(t, c, true)

	// The main plugin writes its file again.
	put(t, c, "10-bridge.conflist", strings.Replace(bridge, "portMappings", "bandwidth", 1))
	if err := c.Installed(); err == nil || !strings.Contains(err.Error(), "no entry for weft-cni") {
		t.Errorf("Installed = %v", err)
	}
	install(t, c, true)

	// Somebody appends a plugin: ours stays the last.
	b, err := os.ReadFile(filepath.Join(c.ConfDir, "10-bridge.conflist"))
	check(t, err)
	l, err := parse(b, false)
	check(t, err)
	l.plugins = append(l.plugins, json.RawMessage(`{"type":"late"}`))
	b, err = l.encode()
	check(t, err)
	put(t, c, "10-bridge.conflist", string(b))
	install(t, c, true)
	if got := types(t, c, "10-bridge.conflist"); got != "bridge portmap late weft-cni" {
		t.Errorf("plugins: %s", got)
	}

	// The entry is another, as after an upgrade; the program too.
	c.Entry = map[string]any{"type": "weft-cni", "socket": "/run/t"}
	check(t, os.WriteFile(c.Program, []byte("program 2"), 0o755))
	install(t, c, true)
	if b, err := os.ReadFile(filepath.Join(c.BinDir, "weft-cni")); err != nil || string(b) != "program 2" {
		t.Errorf("program: %q, %v", b, err)
	}

	// The runtime uses another file from now on.
	put(t, c, "05-new.conflist", bridge)
	install(t, c, true)
	if got, old := types(t, c, "05-new.conflist"), types(t, c, "10-bridge.conflist"); got != "bridge portmap weft-cni" || old != "bridge portmap late" {
		t.Errorf("plugins: %s, before %s", got, old)
	}
	check(t, c.Uninstall())
	if left := folder(t, c); len(left) != 2 || left["05-new.conflist"] != bridge {
		t.Errorf("left: %v", left)
	}
}

func TestInstallRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no network yet", nil, "no network configuration yet"},
		{"no JSON", map[string]string{"a.conflist": "{"}, "a.conflist: no network configuration"},
		{"no plugins", map[string]string{"a.conflist": `{"plugins":[]}`}, "none to come after"},
		{"a plugin without a type", map[string]string{"a.conflist": `{"plugins":[{}]}`}, "plugins[0]: no type"},
		{"too much", map[string]string{"a.conflist": strings.Repeat(" ", maxConf+1)}, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := node(t, tt.files)
			before := folder(t, c)
			if _, err := c.Install(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if d := cmp.Diff(before, folder(t, c)); d != "" {
				t.Errorf("it was changed all the same: %s", d)
			}
		})
	}
	c := node(t, map[string]string{"10-bridge.conflist": bridge})
	c.ConfFile = "20-mine.conflist"
	if _, err := c.Install(); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("another file than the one that is named: %v", err)
	}
}

// What comes later is joined when it comes, and what is taken away is brought back.
func TestKeep(t *testing.T) {
	c := node(t, nil)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	type outcome struct {
		changed bool
		err     error
	}
	reports, done := make(chan outcome, 64), make(chan error, 1)
	go func() { done <- c.Keep(ctx, func(changed bool, err error) { reports <- outcome{changed, err} }) }()
	wait := func(what string, ok func(outcome) bool) {
		t.Helper()
		for {
			select {
			case o := <-reports:
				if ok(o) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never: %s", what)
			}
		}
	}
	wait("no network", func(o outcome) bool { return errors.Is(o.err, ErrNoNetwork) })
	put(t, c, "10-bridge.conflist", bridge)
	wait("joined", func(o outcome) bool { return o.changed && o.err == nil })
	check(t, c.Installed())
	put(t, c, "10-bridge.conflist", bridge)
	wait("joined again", func(o outcome) bool { return o.changed && o.err == nil })
	check(t, os.Remove(filepath.Join(c.BinDir, "weft-cni")))
	wait("the program is back", func(o outcome) bool { return o.changed && o.err == nil })
	check(t, c.Installed())
	stop()
	check(t, <-done)
}
