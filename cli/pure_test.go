package cli

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
)

func TestLineDiffShowsChangesWithTheirSurroundings(t *testing.T) {
	tests := map[string]struct{ before, after, want string }{
		"nothing changed":        {"a\nb\n", "a\nb\n", " …"},
		"everything is new":      {"", "a\nb\n", "+a\n+b"},
		"everything is gone":     {"a\n", "", "-a"},
		"one line in between":    {"a\nb\nc\n", "a\nx\nc\n", " a\n-b\n+x\n c"},
		"far lines are left out": {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\n5\n6\n7\n8\nx\n", " …\n 6\n 7\n 8\n-9\n+x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, strings.Join(lineDiff(tt.before, tt.after), "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTablesAlignPaintedCells(t *testing.T) {
	c := colors{on: true}
	tb := newTable("A", "B")
	tb.add(c.green("ok"), "1")
	tb.add("longer", "2")
	var out strings.Builder
	if err := tb.write(&out, colors{}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("A        B\n\x1b[32mok\x1b[0m       1\nlonger   2\n", out.String()); d != "" {
		t.Error(d)
	}
}

func TestKindsAreKnownInEveryForm(t *testing.T) {
	for in, want := range map[string]string{
		"VirtualService": "VirtualService", "virtualservices": "VirtualService", "vs": "VirtualService", "svc": "Service",
		"serviceentries": "ServiceEntry", "AuthorizationPolicies": "AuthorizationPolicy", "all": "", "ns": "Namespace",
	} {
		if got, err := parseKind(in); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "pod", "sz"} {
		if got, err := parseKind(in); err == nil {
			t.Errorf("%q was taken for %q", in, got)
		}
	}
}

func TestQuantilesInterpolateInBuckets(t *testing.T) {
	c := &svcCount{buckets: map[float64]float64{1: 50, 5: 90, 10: 100, math.Inf(1): 100}}
	for q, want := range map[float64]float64{0.25: 0.5, 0.5: 1, 0.9: 5, 0.95: 7.5} {
		if got := c.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	if got := (&svcCount{}).quantile(0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestProxiesThatAreBehindAreNamed(t *testing.T) {
	lost := admin.ProxyStatus{Pod: "gone", Namespace: "x", World: "1"}
	lost.Lost = &lost.Connected
	st := admin.ControlStatus{World: "3", Proxies: []admin.ProxyStatus{
		{Pod: "old", Namespace: "x", World: "1"},
		{Pod: "right", Namespace: "x", World: "2"},
		{Pod: "newer", Namespace: "x", World: "3"},
		{Pod: "no", Namespace: "x", World: "2", Types: map[string]admin.TypeStatus{"LDS": {State: admin.SyncRefused}}},
		lost,
	}}
	late, refused := behind(st, "2")
	if d := cmp.Diff([][]string{{"old.x"}, {"no.x"}}, [][]string{late, refused}); d != "" {
		t.Error(d)
	}
}

func TestReasonsAreShortInTables(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"app: exit code 1":      "app: exit code 1",
		"two\nlines  of it":     "two lines of it",
		strings.Repeat("é", 60): strings.Repeat("é", 60),
		`app: not ready: http probe: Get "http://10.97.0.5:8080/a/very/long/path/of/health?with=parameters": dial tcp 10.97.0.5:8080: connect: connection refused`: `app: not ready: http probe: G…8080: connect: connection refused`,
	} {
		got := shorten(in)
		if n := len([]rune(got)); n > maxReason+1 {
			t.Errorf("%d characters: %q", n, got)
		}
		if len(in) < 100 && got != want || !strings.HasSuffix(got, want[max(0, len(want)-20):]) {
			t.Errorf("shorten(%q) = %q, want %q", in, got, want)
		}
	}
}
