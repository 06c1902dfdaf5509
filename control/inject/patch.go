package inject

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// operation is one of RFC 6902.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// jsonPatch is what turns old into new: JSON Patch, always in the same order. nil: nothing to do.
func jsonPatch(old, now map[string]any) ([]byte, error) {
	var ops []operation
	diff("", old, now, &ops)
	if len(ops) == 0 {
		return nil, nil
	}
	return json.Marshal(ops)
}

func diff(path string, old, now any, ops *[]operation) {
	if reflect.DeepEqual(old, now) {
		return
	}
	switch n := now.(type) {
	case map[string]any:
		if o, ok := old.(map[string]any); ok {
			diffObjects(path, o, n, ops)
			return
		}
	case []any:
		if o, ok := old.([]any); ok {
			diffLists(path, o, n, ops)
			return
		}
	}
	*ops = append(*ops, operation{"replace", path, now})
}

func diffObjects(path string, old, now map[string]any, ops *[]operation) {
	for _, k := range slices.Sorted(maps.Keys(old)) {
		if _, ok := now[k]; !ok {
			*ops = append(*ops, operation{"remove", path + "/" + escape(k), nil})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(now)) {
		o, ok := old[k]
		if !ok {
			*ops = append(*ops, operation{"add", path + "/" + escape(k), now[k]})
			continue
		}
		diff(path+"/"+escape(k), o, now[k], ops)
	}
}

// diffLists treats what was put before or behind the old items as added; other changes replace the list.
func diffLists(path string, old, now []any, ops *[]operation) {
	at := suffix(old, now)
	if len(now) < len(old) || at < 0 {
		*ops = append(*ops, operation{"replace", path, now})
		return
	}
	for i := range at {
		*ops = append(*ops, operation{"add", path + "/" + itoa(i), now[i]})
	}
	for i := range old {
		diff(path+"/"+itoa(at+i), old[i], now[at+i], ops)
	}
	for _, v := range now[at+len(old):] {
		*ops = append(*ops, operation{"add", path + "/-", v})
	}
}

// suffix is where the items of old are in now, by their names; -1 if they are not there in one piece.
func suffix(old, now []any) int {
	for at := 0; at+len(old) <= len(now); at++ {
		if slices.EqualFunc(old, now[at:at+len(old)], sameItem) {
			return at
		}
	}
	return -1
}

func sameItem(a, b any) bool {
	x, ok := a.(map[string]any)
	y, ok2 := b.(map[string]any)
	if ok && ok2 && x["name"] != nil {
		return x["name"] == y["name"]
	}
	return reflect.DeepEqual(a, b)
}

func itoa(i int) string { b, _ := json.Marshal(i); return string(b) }

var escaper = strings.NewReplacer("~", "~0", "/", "~1")

func escape(s string) string { return escaper.Replace(s) }
