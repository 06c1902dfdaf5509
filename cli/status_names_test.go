package cli

import (
	"slices"
	"testing"

	"weft.mesh/weft/api/admin"
)

// The column of names is there when somebody subscribed to them.
func TestStatusShowsNamesWhereTheyAreAnswered(t *testing.T) {
	none := []admin.ProxyStatus{{Types: map[string]admin.TypeStatus{"CDS": {}}}}
	if got := statusTypes(none); slices.Contains(got, "NDS") {
		t.Errorf("columns %v", got)
	}
	if got := statusTypes(append(none, admin.ProxyStatus{Types: map[string]admin.TypeStatus{"NDS": {}}})); got[len(got)-1] != "NDS" {
		t.Errorf("columns %v", got)
	}
}
