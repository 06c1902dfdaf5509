package xdsserver

import (
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

// minPatched is from how many bytes on a resource is worth a patch.
const minPatched = 2 << 10

// patches tells whether a client may get resources of a type as patches of what it has. That must be known for sure: it
// has taken everything. A version is the hash of the bytes, so that a client that comes back says what it has well enough. Only route tables and name tables are
// large and change a little.
func (s *session) patches(w *watch) bool {
	return s.delta && s.node.Patches && (w.typeURL == xds.RouteType || w.typeURL == xds.NameTableType) && !w.refused && len(w.outstanding) == 0
}

// patchesOf makes patches for what changed, by name. What a client asked for again goes whole.
func patchesOf(d difference, force map[string]struct{}) map[string][]byte {
	var out map[string][]byte
	for _, r := range d.resources {
		have := d.changed[r.Name]
		if _, again := force[r.Name]; have == nil || again || len(r.Body) < minPatched {
			continue
		}
		if p := patch.Make(have, r); p != nil {
			if out == nil {
				out = map[string][]byte{}
			}
			out[r.Name] = p
		}
	}
	return out
}

// body is what of a resource goes to the client, and its type.
func (m *message) body(r *xds.Resource) (typeURL string, body []byte) {
	if p, ok := m.patches[r.Name]; ok {
		return patch.Type, p
	}
	return r.TypeURL, r.Body
}
