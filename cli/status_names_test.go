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

func TestNamesOfAProxyAreSorted(t *testing.T) {
	names, err := readNames([]byte(`{"table": {"web.default.svc.cluster.local": {"ips": ["10.0.0.1"], "registry": "Kubernetes", "shortname": "web", "namespace": "default"}, "api.example.com": {"ips": ["240.240.0.1"], "registry": "External"}}}`))
	if err != nil || len(names) != 2 || names[0].Name != "api.example.com" || names[1].Shortname != "web" || names[1].IPs[0] != "10.0.0.1" {
		t.Errorf("%v, %v", names, err)
	}
	if names, err := readNames([]byte("not ready")); err == nil {
		t.Errorf("%v of a page that is none", names)
	}
}
