package xdsserver

import (
	"slices"
	"strings"

	"weft.mesh/weft/xds"
)

// difference is what brings a client from what it has to what a snapshot has.
type difference struct {
	resources []*xds.Resource
	changed   map[string]*xds.Resource // of them, what the client has of the name; nil if there is none
	added     bool                     // resources has names that the client did not have
	gone      []*xds.Resource          // of what it has
	forgotten map[string]string        // of what it said it has, and never was sent: versions by name
}

// differ compares both lists, sorted by name, and what is known besides held.
func differ(held, all []*xds.Resource, told map[string]string, force map[string]struct{}) difference {
	var d difference
	if len(held) == 0 && len(told) == 0 {
		d.resources, d.added = all, len(all) > 0
		return d
	}
	i := 0
	for _, r := range all {
		if i < len(held) && held[i] == r && len(force) == 0 { // most of them
			i++
			continue
		}
		for i < len(held) && held[i].Name < r.Name {
			d.gone = append(d.gone, held[i])
			i++
		}
		if i < len(held) && held[i].Name == r.Name {
			h := held[i]
			i++
			if h == r || h.Version == r.Version {
				if _, again := force[r.Name]; !again {
					continue
				}
			}
			d.resources = append(d.resources, r)
			if d.changed == nil {
				d.changed = map[string]*xds.Resource{}
			}
			d.changed[r.Name] = h
			continue
		}
		v, known := told[r.Name]
		if _, again := force[r.Name]; !known || v != r.Version || again {
			d.resources = append(d.resources, r)
			d.added = d.added || !known
		}
	}
	d.gone = append(d.gone, held[i:]...)
	for name, v := range told {
		if find(all, name) == nil {
			if d.forgotten == nil {
				d.forgotten = map[string]string{}
			}
			d.forgotten[name] = v
		}
	}
	return d
}

// find looks up a name in a sorted list; nil if it is not there.
func find(sorted []*xds.Resource, name string) *xds.Resource {
	if i, ok := index(sorted, name); ok {
		return sorted[i]
	}
	return nil
}

// index is where a name is in a sorted list.
func index(sorted []*xds.Resource, name string) (int, bool) {
	return slices.BinarySearchFunc(sorted, name, func(r *xds.Resource, n string) int { return strings.Compare(r.Name, n) })
}

// same tells whether two lists are one, or have the same names and versions.
func same(a, b []*xds.Resource) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true
	}
	return slices.EqualFunc(a, b, func(x, y *xds.Resource) bool { return x == y || x.Name == y.Name && x.Version == y.Version })
}
