package spiffe

import (
	"strings"
	"testing"
)

func TestNamesOfAnIdentityAreOneSegmentEach(t *testing.T) {
	for _, n := range [][2]string{{"shop", "a/b"}, {"shop/sa/admin", "web"}, {"shop", ""}, {"", "web"}, {"..", "web"}, {"shop", "we b"}} {
		if id, err := New("cluster.local", n[0], n[1]); err == nil {
			t.Errorf("namespace %q, service account %q: became %s", n[0], n[1], id)
		}
	}
	id, err := New("cluster.local", "shop", "web")
	if err != nil || id.String() != "spiffe://cluster.local/ns/shop/sa/web" {
		t.Fatalf("%s, %v", id, err)
	}
	if ns, sa, ok := id.Workload(); !ok || ns != "shop" || sa != "web" {
		t.Errorf("workload %s %s %t", ns, sa, ok)
	}
}

func TestParseIsStrict(t *testing.T) {
	for _, s := range []string{"spiffe://td", "spiffe://td/a", "spiffe://a.b-c_1/ns/x/sa/y.z"} {
		if id, err := Parse(s); err != nil || id.String() != s {
			t.Errorf("%s: %s, %v", s, id, err)
		}
	}
	for _, s := range []string{
		"", "spiffe://", "SPIFFE://td/a", "https://td/a", "spiffe://TD/a", "spiffe://td:80/a", "spiffe://u@td/a", "spiffe://td/a?b", "spiffe://td/a#b",
		"spiffe://td/", "spiffe://td//a", "spiffe://td/a/", "spiffe://td/./a", "spiffe://td/../a", "spiffe://td/a%2fb", "spiffe://td/ä", "spiffe://td/a b",
		"spiffe://td/" + strings.Repeat("a", MaxLen),
	} {
		if id, err := Parse(s); err == nil {
			t.Errorf("%.40q was taken: %.40s", s, id)
		}
	}
}
