package route

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/stream"
)

func request(method, authority, path string, headers ...string) *stream.Request {
	r := &stream.Request{Proto: stream.HTTP11, Method: []byte(method), Scheme: []byte("http"), Authority: []byte(authority), Path: []byte(path)}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Fields.Add(headers[i], headers[i+1])
	}
	return r
}

func to(cluster string) *Forward { return &Forward{Cluster: cluster} }

func TestHostFindsTheMostSpecificDomain(t *testing.T) {
	vh := func(name string, domains ...string) *VirtualHost { return &VirtualHost{Name: name, Domains: domains} }
	tab := &Table{VirtualHosts: []*VirtualHost{
		vh("exact", "reviews.default.svc.cluster.local", "reviews:9080", "Reviews"),
		vh("suffix", "*.example.com"),
		vh("longer suffix", "*.api.example.com"),
		vh("prefix", "shop.*"),
		vh("any", "*"),
	}}
	if err := Build(tab); err != nil {
		t.Fatal(err)
	}
	for authority, want := range map[string]string{
		"reviews":                "exact",
		"REVIEWS":                "exact",
		"reviews:9080":           "exact",
		"reviews:80":             "any",
		"a.example.com":          "suffix",
		"A.API.example.COM":      "longer suffix",
		".example.com":           "any",
		"example.com":            "any",
		"shop.org":               "prefix",
		"shop.":                  "any",
		"":                       "any",
		strings.Repeat("a", 999): "any",
	} {
		if got := tab.Host([]byte(authority)).Name; got != want {
			t.Errorf("Host(%q) = %q, want %q", authority, got, want)
		}
	}
	tab.IgnorePort = true
	for _, a := range []string{"reviews:80", "reviews", "[::1]:80"} {
		want := "exact"
		if a[0] == '[' {
			want = "any"
		}
		if got := tab.Host([]byte(a)).Name; got != want {
			t.Errorf("ignoring ports: Host(%q) = %q, want %q", a, got, want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	one := func(r *Route) *Table {
		return &Table{Name: "80", VirtualHosts: []*VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*Route{r}}}}
	}
	for name, c := range map[string]struct {
		t    *Table
		want string
	}{
		"the same domain twice":    {&Table{VirtualHosts: []*VirtualHost{{Name: "a", Domains: []string{"x"}}, {Name: "b", Domains: []string{"X"}}}}, `also in virtual host "a"`},
		"the same wildcard twice":  {&Table{VirtualHosts: []*VirtualHost{{Name: "a", Domains: []string{"*.x"}}, {Name: "b", Domains: []string{"*.x"}}}}, `unique`},
		"a star in the middle":     {&Table{VirtualHosts: []*VirtualHost{{Name: "a", Domains: []string{"a.*.x"}}}}, "one * only"},
		"a host without domains":   {&Table{VirtualHosts: []*VirtualHost{{Name: "a"}}}, "no domains"},
		"a route without action":   {one(&Route{}), "0 actions"},
		"a route with two actions": {one(&Route{Forward: to("a"), Direct: &Direct{}}), "2 actions"},
		"weights of zero":          {one(&Route{Forward: &Forward{Weighted: []WeightedCluster{{Cluster: "a"}}}}), "sum of weights is 0"},
		"a forward to nowhere":     {one(&Route{Forward: &Forward{}}), "no cluster"},
		"a change of host":         {one(&Route{Forward: to("a"), Headers: HeaderOps{Request: Ops{Mutations: []Mutation{{Name: "Host", Value: "x"}}}}}), "cannot be changed"},
		"a pseudo-header":          {one(&Route{Forward: to("a"), Headers: HeaderOps{Request: Ops{Remove: []string{":path"}}}}), "not a header name"},
		"an unknown operator":      {one(&Route{Forward: to("a"), Headers: HeaderOps{Response: Ops{Mutations: []Mutation{{Name: "x", Value: "%CEL(1)%"}}}}}), "CEL"},
		"a lone percent sign":      {one(&Route{Forward: to("a"), Headers: HeaderOps{Response: Ops{Mutations: []Mutation{{Name: "x", Value: "100%"}}}}}), "%%"},
		"a missing regex":          {one(&Route{Forward: to("a"), Match: Match{Path: Path{Kind: PathRegex}}}), "not compiled"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Build(c.t)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Build: %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestMatchConditions(t *testing.T) {
	re := func(s string) StringMatch {
		r, err := FullRegexp(s)
		if err != nil {
			t.Fatal(err)
		}
		return StringMatch{Kind: StringRegex, Regex: r}
	}
	str := func(k StringKind, v string) StringMatch { return StringMatch{Kind: k, Value: v} }
	hdr := func(name string, m StringMatch) Match { return Match{Headers: []HeaderMatch{{Name: name, Match: m}}} }
	get := func(path string, headers ...string) *stream.Request { return request("GET", "a", path, headers...) }
	for name, c := range map[string]struct {
		m    Match
		req  *stream.Request
		want bool
	}{
		"a prefix does not look at the query":       {Match{Path: Path{Kind: PathPrefix, Value: "/a?b"}}, get("/a?b"), false},
		"a prefix of bytes":                         {Match{Path: Path{Kind: PathPrefix, Value: "/ab"}}, get("/abc"), true},
		"a separated prefix ends at a slash":        {Match{Path: Path{Kind: PathSeparatedPrefix, Value: "/ab"}}, get("/abc"), false},
		"a separated prefix with more path":         {Match{Path: Path{Kind: PathSeparatedPrefix, Value: "/ab"}}, get("/ab/c"), true},
		"a separated prefix alone":                  {Match{Path: Path{Kind: PathSeparatedPrefix, Value: "/ab"}}, get("/ab?x=1"), true},
		"an exact path with a query":                {Match{Path: Path{Kind: PathExact, Value: "/a"}}, get("/a?x=1"), true},
		"an exact path in another case":             {Match{Path: Path{Kind: PathExact, Value: "/a"}}, get("/A"), false},
		"an exact path ignoring case":               {Match{Path: Path{Kind: PathExact, Value: "/a", IgnoreCase: true}}, get("/A"), true},
		"a regex matches the whole path only":       {Match{Path: Path{Kind: PathRegex, Regex: re("/a").Regex}}, get("/ab"), false},
		"a regex with alternatives is anchored":     {Match{Path: Path{Kind: PathRegex, Regex: re("/a|/b").Regex}}, get("/bc"), false},
		"two header lines are compared one by one":  {hdr("end-user", str(StringExact, "jason")), get("/", "end-user", "bob", "End-User", "jason"), true},
		"one line with a comma is one value":        {hdr("end-user", str(StringExact, "jason")), get("/", "end-user", "jason,bob"), false},
		"presence of an empty header":               {hdr("x", str(StringPresent, "")), get("/", "x", ""), true},
		"presence of a missing header":              {hdr("x", str(StringPresent, "")), get("/"), false},
		"absence wanted and given":                  {Match{Headers: []HeaderMatch{{Name: "x", Invert: true}}}, get("/"), true},
		"inverted value of a missing header":        {Match{Headers: []HeaderMatch{{Name: "x", Match: str(StringExact, "1"), Invert: true}}}, get("/"), false},
		"inverted value, missing treated as empty":  {Match{Headers: []HeaderMatch{{Name: "x", Match: str(StringExact, "1"), Invert: true, TreatMissingAsEmpty: true}}}, get("/"), true},
		"inverted value with the value in any line": {Match{Headers: []HeaderMatch{{Name: "x", Match: str(StringExact, "1"), Invert: true}}}, get("/", "x", "2", "x", "1"), false},
		"a range holds its start":                   {Match{Headers: []HeaderMatch{{Name: "x", Range: &Range{5, 7}}}}, get("/", "x", "5"), true},
		"a range does not hold its end":             {Match{Headers: []HeaderMatch{{Name: "x", Range: &Range{5, 7}}}}, get("/", "x", "7"), false},
		"a range wants a number":                    {Match{Headers: []HeaderMatch{{Name: "x", Range: &Range{5, 7}}}}, get("/", "x", "5x"), false},
		"method":                                    {hdr(":method", str(StringExact, "GET")), get("/"), true},
		"authority ignoring case":                   {hdr(":authority", StringMatch{Kind: StringExact, Value: "a", IgnoreCase: true}), request("GET", "A", "/"), true},
		"scheme":                                    {hdr(":scheme", str(StringExact, "https")), get("/"), false},
		"suffix":                                    {hdr("x", str(StringSuffix, "bc")), get("/", "x", "abc"), true},
		"suffix longer than the value":              {hdr("x", str(StringSuffix, "abcd")), get("/", "x", "abc"), false},
		"contains ignoring case":                    {hdr("x", StringMatch{Kind: StringContains, Value: "bc", IgnoreCase: true}), get("/", "x", "aBCd"), true},
		"a header regex is anchored":                {hdr("x", re("a+")), get("/", "x", "aab"), false},
		"a query parameter":                         {Match{Query: []QueryMatch{{"v", str(StringExact, "2")}}}, get("/?u=1&v=2"), true},
		"the first of two equal parameters counts":  {Match{Query: []QueryMatch{{"v", str(StringExact, "2")}}}, get("/?v=1&v=2"), false},
		"a parameter without a value is present":    {Match{Query: []QueryMatch{{"v", str(StringPresent, "")}}}, get("/?v"), true},
		"a missing parameter":                       {Match{Query: []QueryMatch{{"v", str(StringPresent, "")}}}, get("/?w=v"), false},
		"gRPC by content type":                      {Match{GRPC: true}, get("/", "content-type", "application/grpc+proto"), true},
		"gRPC-Web is not gRPC":                      {Match{GRPC: true}, get("/", "content-type", "application/grpc-web"), false},
		"all conditions must hold":                  {Match{Path: Path{Kind: PathPrefix, Value: "/a"}, Headers: []HeaderMatch{{Name: "x"}}}, get("/a"), false},
		"CONNECT":                                   {Match{Path: Path{Kind: PathConnect}}, request("CONNECT", "a:80", ""), true},
		"a fraction of zero":                        {Match{Fraction: &Fraction{0, 100}}, get("/"), false},
		"a fraction of all":                         {Match{Fraction: &Fraction{100, 100}}, get("/"), true},
	} {
		t.Run(name, func(t *testing.T) {
			tab := &Table{VirtualHosts: []*VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*Route{{Match: c.m, Forward: to("a")}}}}}
			if err := Build(tab); err != nil {
				t.Fatal(err)
			}
			if got := tab.Match(c.req, netip.Addr{}, 7) != nil; got != c.want {
				t.Errorf("match = %v, want %v", got, c.want)
			}
		})
	}
}

func TestAnUnanchoredRegexIsAnchored(t *testing.T) {
	m := Match{Path: Path{Kind: PathRegex, Regex: mustRegexp("/a")}}
	tab := &Table{VirtualHosts: []*VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*Route{{Match: m, Forward: to("a")}}}}}
	if err := Build(tab); err != nil {
		t.Fatal(err)
	}
	if tab.Match(request("GET", "a", "/x/a/b"), netip.Addr{}, 0) != nil {
		t.Error("an expression without anchors matched a part of the path")
	}
}

func TestChooseFollowsWeights(t *testing.T) {
	f := &Forward{Weighted: []WeightedCluster{{Cluster: "a", Weight: 90}, {Cluster: "none", Weight: 0}, {Cluster: "b", Weight: 10}}}
	if err := f.build(); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for i := range uint64(1000) {
		got[f.Choose(i).Cluster]++
	}
	if diff := cmp.Diff(map[string]int{"a": 900, "b": 100}, got); diff != "" {
		t.Error(diff)
	}
}

func TestOpsApplyInOrder(t *testing.T) {
	ops := Ops{
		Remove: []string{"gone"},
		Mutations: []Mutation{
			{Name: "x-add", Value: "2"},
			{Name: "x-set", Value: "new", Action: OverwriteOrAdd},
			{Name: "x-have", Value: "other", Action: AddIfAbsent},
			{Name: "x-new", Value: "1", Action: AddIfAbsent},
			{Name: "x-no", Value: "1", Action: OverwriteIfExists},
			{Name: "x-empty", Value: "", Action: OverwriteOrAdd},
			{Name: "x-keep", Value: "", Action: OverwriteOrAdd, KeepEmpty: true},
			{Name: "x-template", Value: "%REQ(:METHOD)% %REQ(NONE?X-HAVE)% 100%% %PROTOCOL% %UPSTREAM_HOST%"},
		},
	}
	if err := ops.build(); err != nil {
		t.Fatal(err)
	}
	req := request("GET", "a", "/", "Gone", "1", "gone", "2", "X-Add", "1", "x-set", "a", "x-set", "b", "x-have", "mine")
	env := &Env{Info: &stream.Info{Conn: &stream.ConnInfo{}, Start: time.Now()}, Req: req}
	ops.Apply(&req.Fields, env)
	var got []string
	for _, f := range req.Fields.All() {
		got = append(got, string(f.Name)+": "+string(f.Value))
	}
	want := []string{"X-Add: 1", "x-set: new", "x-have: mine", "x-add: 2", "x-new: 1", "x-keep: ", "x-template: GET mine 100% HTTP/1.1 -"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPerFilterIsInherited(t *testing.T) {
	w := WeightedCluster{Cluster: "a", Weight: 1, PerFilter: map[string]any{"w": 1}}
	r := &Route{PerFilter: map[string]any{"r": 2, "w": 2}, Forward: &Forward{Weighted: []WeightedCluster{w}}}
	tab := &Table{VirtualHosts: []*VirtualHost{{Name: "v", Domains: []string{"*"}, PerFilter: map[string]any{"v": 3, "r": 3}, Routes: []*Route{r}}}}
	if err := Build(tab); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"v": 3, "r": 2, "w": 1}, r.Forward.Weighted[0].PerFilter); diff != "" {
		t.Error(diff)
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	re, _ := FullRegexp("/api/v[0-9]+/.*")
	routes := []*Route{
		{Match: Match{Path: Path{Kind: PathRegex, Regex: re}, Headers: []HeaderMatch{{Name: "x", Match: StringMatch{Kind: StringExact, Value: "1"}}}}, Forward: to("a")},
		{Match: Match{Path: Path{Kind: PathPrefix, Value: "/api"}, Headers: []HeaderMatch{{Name: "n", Range: &Range{1, 9}}}, Query: []QueryMatch{{"q", StringMatch{Kind: StringPrefix, Value: "a"}}}},
			Forward: &Forward{Weighted: []WeightedCluster{{Cluster: "a", Weight: 1}}}},
	}
	tab := &Table{ByAddress: true, VirtualHosts: []*VirtualHost{{Name: "v", Domains: []string{"*.example.net", "10.0.0.1"}, Routes: routes}}}
	if err := Build(tab); err != nil {
		t.Fatal(err)
	}
	dst := netip.MustParseAddr("10.0.0.1")
	req := request("GET", "a.EXAMPLE.com", "/api/v1/x?q=ab", "n", "5")
	if n := testing.AllocsPerRun(1000, func() {
		if r := tab.Match(req, dst, 3); r == nil || r.Forward.Choose(1) == nil {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Errorf("allocs per match = %v, want 0", n)
	}
}

func mustRegexp(s string) *regexp.Regexp { return regexp.MustCompile(s) }

// A host that the table does not have is routed as the address that was called, where the table says so.
func TestAnUnknownHostIsRoutedByAddress(t *testing.T) {
	hosts := func(any bool) []*VirtualHost {
		out := []*VirtualHost{
			{Name: "four", Domains: []string{"four", "10.0.0.1"}, Routes: []*Route{{Forward: to("four")}}},
			{Name: "six", Domains: []string{"six", "[fd00::1]", "*.wild"}, Routes: []*Route{{Forward: to("six")}}},
		}
		if any {
			out = append(out, &VirtualHost{Name: "any", Domains: []string{"*"}, Routes: []*Route{{Forward: to("any")}}})
		}
		return out
	}
	for _, c := range []struct{ host, dst, plain, byAddress, withoutAny string }{
		{"four", "10.0.0.1", "four", "four", "four"},
		{"FOUR", "fd00::1", "four", "four", "four"}, // a host that is known goes first
		{"x.wild", "10.0.0.1", "six", "six", "six"},
		{"other", "10.0.0.1", "any", "four", "four"},
		{"other", "::ffff:10.0.0.1", "any", "four", "four"},
		{"other", "fd00::1", "any", "six", "six"},
		{"other", "10.0.0.2", "any", "any", ""},
		{"other", "", "any", "any", ""},
	} {
		var dst netip.Addr
		if c.dst != "" {
			dst = netip.MustParseAddr(c.dst)
		}
		for _, x := range []struct {
			tab  Table
			want string
		}{{Table{VirtualHosts: hosts(true)}, c.plain}, {Table{VirtualHosts: hosts(true), ByAddress: true}, c.byAddress}, {Table{VirtualHosts: hosts(false), ByAddress: true}, c.withoutAny}} {
			if err := Build(&x.tab); err != nil {
				t.Fatal(err)
			}
			got := ""
			if r := x.tab.Match(request("GET", c.host, "/"), dst, 0); r != nil {
				got = r.Forward.Cluster
			}
			if got != x.want {
				t.Errorf("host %s at %q, by address %t: %q, want %q", c.host, c.dst, x.tab.ByAddress, got, x.want)
			}
		}
	}
}
