package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

// list is a network configuration list. Fields that are not looked at stay as they are.
type list struct {
	fields  map[string]json.RawMessage
	plugins []json.RawMessage
}

// parse reads a list, or one plugin as a list of one.
func parse(b []byte, single bool) (*list, error) {
	l := &list{}
	if err := json.Unmarshal(b, &l.fields); err != nil {
		return nil, err
	}
	if single {
		return l, l.fromOne()
	}
	if err := json.Unmarshal(l.fields["plugins"], &l.plugins); err != nil {
		return nil, fmt.Errorf("plugins: want a list: %w", err)
	}
	if len(l.plugins) == 0 {
		return nil, errors.New("plugins: there is none to come after")
	}
	for i, p := range l.plugins {
		if typeOf(p) == "" {
			return nil, fmt.Errorf("plugins[%d]: no type", i)
		}
	}
	return l, nil
}

// fromOne makes a list of a configuration of one plugin: what is of the network goes to the list.
func (l *list) fromOne() error {
	one := l.fields
	l.fields = map[string]json.RawMessage{}
	for _, k := range []string{"cniVersion", "name"} {
		if v, ok := one[k]; ok {
			l.fields[k] = v
			delete(one, k)
		}
	}
	b, err := json.Marshal(one)
	if err != nil {
		return err
	}
	if typeOf(b) == "" {
		return errors.New("no type")
	}
	l.plugins = []json.RawMessage{b}
	return nil
}

// typeOf is a plugin's type; empty if it has none.
func typeOf(p json.RawMessage) string {
	var t struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(p, &t) != nil {
		return ""
	}
	return t.Type
}

// find is the entry of a type, nil if there is none, and whether it is the last and only one.
func (l *list) find(typ string) (entry json.RawMessage, last bool) {
	n := 0
	for i, p := range l.plugins {
		if typeOf(p) == typ {
			entry, last = p, i == len(l.plugins)-1
			n++
		}
	}
	return entry, last && n == 1
}

// without is the list without a plugin.
func (l *list) without(typ string) *list {
	out := &list{fields: l.fields}
	for _, p := range l.plugins {
		if typeOf(p) != typ {
			out.plugins = append(out.plugins, p)
		}
	}
	return out
}

// encode is the list as a file.
func (l *list) encode() ([]byte, error) {
	all := map[string]any{}
	for k, v := range l.fields {
		all[k] = v
	}
	all["plugins"] = l.plugins
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(all)
	return b.Bytes(), err
}

// sameJSON tells whether two texts mean the same.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
