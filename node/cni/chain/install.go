package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoNetwork means that the node has no network configuration yet: the main plugin has not written its own.
var ErrNoNetwork = errors.New("the node has no network configuration yet")

// Install brings the node to where the plugin is called, and tells whether it had to change something.
// Doing it again changes nothing.
func (c *Chain) Install() (changed bool, err error) {
	program, err := os.ReadFile(c.Program)
	if err != nil {
		return false, fmt.Errorf("plugin: %w", err)
	}
	at := filepath.Join(c.BinDir, c.Type)
	if old, err := os.ReadFile(at); err != nil || !bytes.Equal(old, program) {
		changed = true
		if err := write(at, program, 0o755); err != nil {
			return changed, fmt.Errorf("plugin: %w", err)
		}
	}
	main, err := c.main()
	if err != nil {
		return changed, err
	}
	joined, err := c.join(main)
	if err != nil {
		return changed, fmt.Errorf("%s: %w", filepath.Join(c.ConfDir, main), err)
	}
	// Elsewhere nothing is left: the main plugin may have changed its file's name.
	left, err := c.leaveAll(listName(main))
	return changed || joined || left, err
}

// Installed says what is missing of an installation; nil: nothing.
func (c *Chain) Installed() error {
	program, err := os.ReadFile(c.Program)
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if old, err := os.ReadFile(filepath.Join(c.BinDir, c.Type)); err != nil || !bytes.Equal(old, program) {
		return fmt.Errorf("plugin: %s is not what it should be", c.Type)
	}
	main, err := c.main()
	if err != nil {
		return err
	}
	_, ok, err := c.look(main)
	if err == nil && !ok {
		err = errors.New("no entry for " + c.Type)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(c.ConfDir, main), err)
	}
	return nil
}

// Uninstall takes the plugin away, the entry before the program.
func (c *Chain) Uninstall() error {
	if _, err := c.leaveAll(""); err != nil {
		return err
	}
	return remove(filepath.Join(c.BinDir, c.Type))
}

// main is the configuration that the runtime uses.
func (c *Chain) main() (string, error) {
	all, err := configurations(c.ConfDir)
	if err != nil {
		return "", err
	}
	for _, name := range all {
		if c.ConfFile == "" || name == c.ConfFile || name == listName(c.ConfFile) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%w: nothing in %s", ErrNoNetwork, filepath.Join(c.ConfDir, c.ConfFile))
}

// listName is what a configuration's file is called as a list.
func listName(name string) string {
	if isSingle(name) {
		return name[:len(name)-len(filepath.Ext(name))] + ".conflist"
	}
	return name
}

// look reads a configuration and tells whether the entry is in its place.
func (c *Chain) look(name string) (l *list, ok bool, err error) {
	b, err := read(filepath.Join(c.ConfDir, name))
	if err != nil {
		return nil, false, err
	}
	if l, err = parse(b, isSingle(name)); err != nil {
		return nil, false, fmt.Errorf("no network configuration: %w", err)
	}
	want, err := json.Marshal(c.Entry)
	if err != nil {
		return nil, false, err
	}
	entry, last := l.find(c.Type)
	return l, !isSingle(name) && last && sameJSON(entry, want), nil
}

// join appends the entry to a configuration that has it not, or not so.
func (c *Chain) join(name string) (bool, error) {
	l, ok, err := c.look(name)
	if err != nil || ok {
		return false, err
	}
	path := filepath.Join(c.ConfDir, name)
	if entry, _ := l.find(c.Type); entry == nil { // as its owner wrote it
		b, err := read(path)
		if err != nil {
			return false, err
		}
		if err := write(path+savedSuffix, b, 0o600); err != nil {
			return false, err
		}
	}
	entry, err := json.Marshal(c.Entry)
	if err != nil {
		return false, err
	}
	out := l.without(c.Type)
	out.plugins = append(out.plugins, entry)
	b, err := out.encode()
	if err != nil {
		return false, err
	}
	if err := write(filepath.Join(c.ConfDir, listName(name)), b, mode(path)); err != nil {
		return false, err
	}
	if isSingle(name) { // it would come before the list
		return true, remove(path)
	}
	return true, nil
}

// mode is that of a file, or what configurations usually have.
func mode(path string) os.FileMode {
	if st, err := os.Stat(path); err == nil {
		return st.Mode().Perm()
	}
	return 0o600
}

// leaveAll takes the entry out of all configurations but one. What cannot be read is not ours.
func (c *Chain) leaveAll(but string) (changed bool, err error) {
	all, err := configurations(c.ConfDir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, name := range all {
		if name == but || isSingle(name) {
			continue
		}
		b, err := read(filepath.Join(c.ConfDir, name))
		if err != nil {
			continue
		}
		l, err := parse(b, false)
		if err != nil {
			continue
		}
		if entry, _ := l.find(c.Type); entry == nil {
			continue
		}
		if err := c.leave(name, l.without(c.Type)); err != nil {
			return changed, fmt.Errorf("%s: %w", filepath.Join(c.ConfDir, name), err)
		}
		changed = true
	}
	return changed, c.forget(but)
}

// leave brings back a configuration as it was.
func (c *Chain) leave(name string, l *list) error {
	b, err := l.encode()
	if err != nil {
		return err
	}
	path := filepath.Join(c.ConfDir, name)
	if single, saved, ok := c.savedSingle(name, b); ok {
		if err := write(filepath.Join(c.ConfDir, single), saved, mode(path)); err != nil {
			return err
		}
		return remove(path)
	}
	if saved, err := read(path + savedSuffix); err == nil && sameJSON(saved, b) {
		b = saved
	}
	return write(path, b, mode(path))
}

// savedSingle is the configuration of one plugin that a list was made of, if it still means the same.
func (c *Chain) savedSingle(name string, now []byte) (single string, saved []byte, ok bool) {
	for _, ext := range []string{".conf", ".json"} {
		single = name[:len(name)-len(".conflist")] + ext
		b, err := read(filepath.Join(c.ConfDir, single+savedSuffix))
		if err != nil {
			continue
		}
		l, err := parse(b, true)
		if err != nil {
			continue
		}
		if asList, err := l.encode(); err == nil && sameJSON(asList, now) {
			return single, b, true
		}
	}
	return "", nil, false
}

// forget removes saved configurations but those of one that is still joined.
func (c *Chain) forget(but string) error {
	saved, err := filepath.Glob(filepath.Join(c.ConfDir, "*"+savedSuffix))
	if err != nil {
		return err
	}
	for _, path := range saved {
		name := filepath.Base(path[:len(path)-len(savedSuffix)])
		if but != "" && listName(name) == but {
			continue
		}
		if err := remove(path); err != nil {
			return err
		}
	}
	return nil
}
