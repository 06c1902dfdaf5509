package hcm

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
)

// through sends a request through and returns what the upstream got.
func through(t *testing.T, change func(h *harness), s *fakeServer) (up map[string]string, h *harness) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h = newHarness(t, ok)
		if change != nil {
			change(h)
		}
		s.abortC = make(chan struct{})
		run(t, h, s)
		if len(h.backend.requests) == 1 {
			up = h.backend.requests[0].headers
		}
	})
	return up, h
}

func TestForwardedHeaders(t *testing.T) {
	edge := func(hops uint32) func(h *harness) {
		return func(h *harness) {
			h.cfg.UseRemoteAddress, h.cfg.XFFTrustedHops = true, hops
			h.info.Direction, h.info.Remote = stream.Gateway, netip.MustParseAddrPort("203.0.113.7:999")
		}
	}
	private := func(h *harness) { edge(0)(h); h.info.Remote = netip.MustParseAddrPort("10.0.0.7:999") }
	for name, c := range map[string]struct {
		setup   func(h *harness)
		headers []string
		want    map[string]string // "" wants absence
		client  string
	}{
		"a sidecar leaves x-forwarded-for":      {nil, []string{"x-forwarded-for", "1.2.3.4, 5.6.7.8"}, map[string]string{"x-forwarded-for": "1.2.3.4, 5.6.7.8", "x-forwarded-proto": "http", "x-envoy-internal": ""}, "5.6.7.8"},
		"a sidecar adds none":                   {nil, nil, map[string]string{"x-forwarded-for": ""}, ""},
		"a sidecar keeps x-forwarded-proto":     {nil, []string{"x-forwarded-proto", "https"}, map[string]string{"x-forwarded-proto": "https"}, ""},
		"a gateway appends":                     {edge(0), []string{"x-forwarded-for", "1.2.3.4"}, map[string]string{"x-forwarded-for": "1.2.3.4,203.0.113.7", "x-envoy-external-address": "203.0.113.7"}, ""},
		"a gateway does not believe the proto":  {edge(0), []string{"x-forwarded-proto", "https"}, map[string]string{"x-forwarded-proto": "http"}, ""},
		"a trusted hop names the client":        {edge(1), []string{"x-forwarded-for", "9.9.9.9, 1.2.3.4", "x-forwarded-proto", "https"}, map[string]string{"x-envoy-external-address": "1.2.3.4", "x-forwarded-proto": "https", "x-forwarded-for": "9.9.9.9, 1.2.3.4,203.0.113.7"}, "1.2.3.4"},
		"garbage names nobody":                  {edge(1), []string{"x-forwarded-for", "unknown"}, map[string]string{"x-envoy-external-address": "203.0.113.7"}, ""},
		"nobody outside steers a gateway":       {edge(0), []string{"x-envoy-retry-on", "5xx", "X-Envoy-Internal", "true", "x-envoy-peer", "x"}, map[string]string{"x-envoy-retry-on": "", "X-Envoy-Internal": "", "x-envoy-internal": "", "x-envoy-peer": ""}, ""},
		"a private address is outside too":      {private, []string{"x-envoy-retry-on", "5xx"}, map[string]string{"x-envoy-internal": "", "x-envoy-retry-on": "", "x-envoy-external-address": "10.0.0.7"}, ""},
		"settings end at the first proxy":       {nil, []string{"x-envoy-upstream-rq-timeout-ms", "1", "x-envoy-max-retries", "9", "x-envoy-attempt-count", "2"}, map[string]string{"x-envoy-upstream-rq-timeout-ms": "", "x-envoy-max-retries": "", "x-envoy-attempt-count": "2"}, ""},
		"several lines of x-forwarded-for join": {edge(0), []string{"x-forwarded-for", "1.1.1.1", "x-forwarded-for", "2.2.2.2"}, map[string]string{"x-forwarded-for": "1.1.1.1,2.2.2.2,203.0.113.7"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			up, h := through(t, c.setup, newServer("GET", "/", c.headers...))
			for k, v := range c.want {
				if up[k] != v {
					t.Errorf("%s = %q, want %q", k, up[k], v)
				}
			}
			got := ""
			if a := h.logged[0].Client; a.IsValid() {
				got = a.Addr().String()
			}
			if got != c.client {
				t.Errorf("client %q, want %q", got, c.client)
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	edge := func(h *harness) {
		h.cfg.UseRemoteAddress = true
		h.info.Remote = netip.MustParseAddrPort("203.0.113.7:999")
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for name, c := range map[string]struct {
		setup func(h *harness)
		given string
		kept  bool
		none  bool
	}{
		"made where there is none":           {nil, "", false, false},
		"kept inside the mesh":               {nil, "abc", true, false},
		"made anew at the edge":              {edge, "abc", false, false},
		"kept at the edge, if so configured": {func(h *harness) { edge(h); h.cfg.PreserveRequestID = true }, "abc", true, false},
		"not made if not wanted":             {func(h *harness) { h.cfg.GenerateRequestID = false }, "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer("GET", "/")
			if c.given != "" {
				s.req.Fields.Add("X-Request-Id", c.given)
			}
			up, h := through(t, c.setup, s)
			got := up["x-request-id"] + up["X-Request-Id"]
			switch {
			case c.none && got != "", c.kept && got != c.given, !c.none && !c.kept && !uuid.MatchString(got):
				t.Errorf("id %q", got)
			case string(h.logged[0].RequestID) != got && len(h.logged[0].RequestID) != len(got):
				t.Errorf("logged %q, sent %q", h.logged[0].RequestID, got)
			}
		})
	}
}

func TestTraceContext(t *testing.T) {
	const (
		tp    = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		trace = "80f198ee56343ba864fe8b2a57d3eff7"
		span  = "e457b5a2e4d86bd1"
	)
	on := func(random float64) func(h *harness) {
		return func(h *harness) {
			h.cfg.Tracing = &config.Tracing{RandomSampling: random, ClientSampling: 100, OverallSampling: 100}
		}
	}
	check := func(t *testing.T, up map[string]string, want map[string]string) {
		t.Helper()
		for k, v := range want {
			if !regexp.MustCompile("^" + v + "$").MatchString(up[k]) {
				t.Errorf("%s = %q, want %s", k, up[k], v)
			}
		}
	}
	const hex16 = "[0-9a-f]{16}"
	for name, c := range map[string]struct {
		random  float64
		headers []string
		want    map[string]string
	}{
		"a new trace that is sampled":     {100, nil, map[string]string{"traceparent": "00-[0-9a-f]{32}-" + hex16 + "-01", "x-b3-traceid": "[0-9a-f]{32}", "x-b3-spanid": hex16, "x-b3-sampled": "1"}},
		"a new trace that is not sampled": {0, nil, map[string]string{"traceparent": "00-.*-00", "x-b3-sampled": "0"}},
		"W3C keeps trace and flags":       {0, []string{"traceparent", tp, "tracestate", "a=b"}, map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-" + hex16 + "-01", "tracestate": "a=b", "x-b3-traceid": ""}},
		"a broken traceparent is dropped": {0, []string{"traceparent", "00-xyz", "tracestate", "a=b"}, map[string]string{"traceparent": "00-[0-9a-f]{32}-" + hex16 + "-00", "tracestate": ""}},
		"B3 makes the caller the parent":  {0, []string{"X-B3-TraceId", trace, "X-B3-SpanId", span, "X-B3-Sampled", "1"}, map[string]string{"X-B3-TraceId": trace, "X-B3-SpanId": hex16, "x-b3-parentspanid": span, "X-B3-Sampled": "1", "traceparent": ""}},
		"B3 decides if nobody did":        {100, []string{"x-b3-traceid", trace, "x-b3-spanid", span}, map[string]string{"x-b3-sampled": "1"}},
		"B3 in one header":                {0, []string{"b3", trace + "-" + span + "-1"}, map[string]string{"b3": trace + "-" + hex16 + "-1-" + span}},
		"B3 in one header, not sampled":   {100, []string{"b3", "0"}, map[string]string{"b3": "0", "x-b3-traceid": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			up, _ := through(t, on(c.random), newServer("GET", "/", c.headers...))
			check(t, up, c.want)
			if s := up["traceparent"]; strings.Contains(s, "00f067aa0ba902b7") || up["X-B3-SpanId"] == span {
				t.Errorf("the span is still the caller's: %v", up)
			}
		})
	}
	up, _ := through(t, nil, newServer("GET", "/"))
	if up["traceparent"] != "" || up["x-b3-traceid"] != "" {
		t.Error("trace headers without tracing")
	}
}

func TestClientCertificateHeader(t *testing.T) {
	id, err := spiffe.New("cluster.local", "default", "bob")
	if err != nil {
		t.Fatal(err)
	}
	const own = "By=a;Hash=b;URI=c"
	for name, c := range map[string]struct {
		mode  config.ForwardClientCert
		mtls  bool
		given string
		want  string
	}{
		"sanitized":                   {config.XFCCSanitize, true, "x", ""},
		"appended":                    {config.XFCCAppendForward, true, "x", "x," + own},
		"appended to nothing":         {config.XFCCAppendForward, true, "", own},
		"not believed without mTLS":   {config.XFCCAppendForward, false, "x", ""},
		"set":                         {config.XFCCSanitizeSet, true, "x", own},
		"set to nothing without mTLS": {config.XFCCSanitizeSet, false, "x", ""},
		"forwarded":                   {config.XFCCForwardOnly, true, "x", "x"},
		"forwarded only from authenticated peers": {config.XFCCForwardOnly, false, "x", ""},
		"always forwarded":                        {config.XFCCAlwaysForwardOnly, false, "x", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer("GET", "/")
			if c.given != "" {
				s.req.Fields.Add("x-forwarded-client-cert", c.given)
			}
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, ok)
				h.cfg.ForwardClientCert = c.mode
				h.start(nil)
				conn := h.m.connection(t.Context(), h.info)
				if c.mtls {
					h.info.PeerID, conn.xfcc = id, []byte(own)
				}
				s.abortC = make(chan struct{})
				conn.handle(t.Context(), s)
				if got := h.backend.requests[0].headers["x-forwarded-client-cert"]; got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestServerHeader(t *testing.T) {
	for name, c := range map[string]struct {
		setup func(h *harness)
		app   string
		want  string
	}{
		"overwritten":            {nil, "python", "istio-envoy"},
		"passed":                 {func(h *harness) { h.cfg.ServerPass = true }, "python", "python"},
		"passed, also if absent": {func(h *harness) { h.cfg.ServerPass = true }, "", ""},
		"appended if absent":     {func(h *harness) { h.cfg.ServerAppend = true }, "", "istio-envoy"},
		"kept if present":        {func(h *harness) { h.cfg.ServerAppend = true }, "python", "python"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer("GET", "/")
			through(t, func(h *harness) {
				if c.app != "" {
					h.backend.handle = always(answer{status: 200, headers: []string{"Server", c.app}})
				}
				if c.setup != nil {
					c.setup(h)
				}
			}, s)
			if got := s.head["server"] + s.head["Server"]; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestRewrites(t *testing.T) {
	str := func(s string) *string { return &s }
	prefix := func(p string) route.Path { return route.Path{Kind: route.PathPrefix, Value: p} }
	re := func(p, to string) *route.RegexRewrite {
		return &route.RegexRewrite{Regex: regexp.MustCompile(p), Substitution: to}
	}
	for name, c := range map[string]struct {
		path     route.Path
		f        route.Forward
		in, want string
	}{
		"a prefix":                       {prefix("/old"), route.Forward{PrefixRewrite: str("/new")}, "/old/x?y=1", "/new/x?y=1"},
		"a prefix to the root":           {prefix("/old"), route.Forward{PrefixRewrite: str("/")}, "/old/x", "//x"},
		"a prefix with its slash":        {prefix("/old/"), route.Forward{PrefixRewrite: str("/")}, "/old/x", "/x"},
		"an exact path":                  {route.Path{Kind: route.PathExact, Value: "/old"}, route.Forward{PrefixRewrite: str("/new")}, "/old?y", "/new?y"},
		"a regex route is replaced":      {route.Path{Kind: route.PathRegex, Regex: regexp.MustCompile("/o.*")}, route.Forward{PrefixRewrite: str("/new")}, "/old/x?y", "/new?y"},
		"no match on the path: in front": {route.Path{}, route.Forward{PrefixRewrite: str("/new")}, "/old", "/new/old"},
		"a regex":                        {prefix("/"), route.Forward{RegexRewrite: re("^/service/([^/]+)(/.*)$", "${2}/instance/${1}")}, "/service/foo/v1?q", "/v1/instance/foo?q"},
		"a regex that does not match":    {prefix("/"), route.Forward{RegexRewrite: re("^/x", "/y")}, "/a?q", "/a?q"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, ok)
				f := c.f
				f.Cluster, f.HostRewrite = "reviews", "other.example.com"
				h.routes(&route.Route{Match: route.Match{Path: c.path}, Forward: &f})
				i := run(t, h, newServer("GET", c.in))
				got := h.backend.requests[0]
				if got.path != c.want || got.authority != "other.example.com" || got.headers["x-envoy-original-path"] != c.in || string(i.OrigPath) != c.in {
					t.Errorf("path %q (want %q), host %q, original %q, logged %q", got.path, c.want, got.authority, got.headers["x-envoy-original-path"], i.OrigPath)
				}
			})
		})
	}
}

func TestRedirects(t *testing.T) {
	str := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		r    route.Redirect
		host string
		in   string
		want string
	}{
		"a host":                              {route.Redirect{Host: "b.com"}, "a.com:80", "/x?y", "http://b.com/x?y"},
		"a path, keeping the query":           {route.Redirect{Path: "/new"}, "a.com", "/x?y", "http://a.com/new?y"},
		"a path with a query of its own":      {route.Redirect{Path: "/new?z"}, "a.com", "/x?y", "http://a.com/new?z"},
		"a path without a slash":              {route.Redirect{Path: ".evil.com"}, "a.com", "/x", "http://a.com/.evil.com"},
		"a query cut off":                     {route.Redirect{StripQuery: true}, "a.com", "/x?y", "http://a.com/x"},
		"a prefix":                            {route.Redirect{PrefixRewrite: str("/new")}, "a.com", "/old/x?y", "http://a.com/new/x?y"},
		"https keeps the port":                {route.Redirect{HTTPS: true}, "a.com:80", "/", "https://a.com:80/"},
		"another scheme drops a default port": {route.Redirect{Scheme: "https"}, "a.com:80", "/", "https://a.com/"},
		"another scheme keeps another port":   {route.Redirect{Scheme: "https"}, "a.com:8080", "/", "https://a.com:8080/"},
		"a port":                              {route.Redirect{Port: 8443}, "a.com:80", "/", "http://a.com:8443/"},
		"a port with an IPv6 address":         {route.Redirect{Port: 8443}, "[::1]:80", "/", "http://[::1]:8443/"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer("GET", c.in, ":authority", c.host)
			through(t, func(h *harness) {
				h.routes(&route.Route{Match: route.Match{Path: route.Path{Kind: route.PathPrefix, Value: "/old"}}, Redirect: &c.r}, &route.Route{Redirect: &c.r})
			}, s)
			if s.head["location"] != c.want || s.status != 301 || s.body.Len() != 0 {
				t.Errorf("%d %q, want 301 %q", s.status, s.head["location"], c.want)
			}
		})
	}
}

func TestHashPolicies(t *testing.T) {
	hashOf := func(s *fakeServer, ps ...route.HashPolicy) (uint64, bool, []byte) {
		x := &exchange{message: message{req: &s.req, conn: &connection{info: &stream.ConnInfo{Remote: netip.MustParseAddrPort("10.0.0.1:4000")}}}}
		h, ok := x.hash(ps)
		return h, ok, x.up.cookie
	}
	user := route.HashPolicy{Kind: route.HashHeader, Name: "x-user"}
	a, okA, _ := hashOf(newServer("GET", "/", "X-User", "jason"), user)
	if !okA || a != xxhash.Sum64String("jason") { // as Envoy hashes a header value
		t.Error("no hash")
	}
	if b, _, _ := hashOf(newServer("GET", "/", "x-user", "jason", "other", "1"), user); a != b {
		t.Error("the same header hashes differently")
	}
	if _, ok, _ := hashOf(newServer("GET", "/"), user); ok {
		t.Error("a missing header has a hash")
	}
	ip := route.HashPolicy{Kind: route.HashSourceIP}
	c, _, _ := hashOf(newServer("GET", "/", "x-user", "jason"), user, ip)
	d, _, _ := hashOf(newServer("GET", "/"), ip)
	if want := (a<<1 | a>>63) ^ d; c != want {
		t.Errorf("two policies: %x, want %x", c, want)
	}
	user.Terminal = true
	if e, _, _ := hashOf(newServer("GET", "/", "x-user", "jason"), user, ip); e != a {
		t.Error("a terminal policy did not end")
	}
	if f, _, _ := hashOf(newServer("GET", "/", "x-user", "2", "x-user", "1"), user); func() bool {
		g, _, _ := hashOf(newServer("GET", "/", "x-user", "1", "x-user", "2"), user)
		return f != g
	}() {
		t.Error("the order of lines matters")
	}
	q := route.HashPolicy{Kind: route.HashQuery, Name: "id"}
	if _, ok, _ := hashOf(newServer("GET", "/?id=7"), q); !ok {
		t.Error("no hash of a query parameter")
	}
	ck := route.HashPolicy{Kind: route.HashCookie, Name: "s", Generate: true, TTL: 60e9, Path: "/", Attrs: [][2]string{{"SameSite", "Lax"}}}
	h1, ok, set := hashOf(newServer("GET", "/"), ck)
	m := regexp.MustCompile(`^s="([0-9a-f]{16})"; Max-Age=60; Path=/; SameSite=Lax; HttpOnly$`).FindStringSubmatch(string(set))
	if !ok || m == nil {
		t.Fatalf("cookie %q", set)
	}
	if h2, _, again := hashOf(newServer("GET", "/", "cookie", "a=b; s="+m[1]), ck); h1 != h2 || again != nil {
		t.Error("the cookie that was given does not lead back")
	}
}

func TestAttemptCountAndExpectedTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, inTurn(answer{status: 503}, answer{status: 200}))
		h.view.Routes["80"].VirtualHosts[0].IncludeAttemptCount = true
		h.forward().Timeout = 3e9
		h.forward().Retry = &route.Retry{On: route.Retry5xx, Attempts: 1}
		run(t, h, newServer("GET", "/"))
		var got []string
		for _, r := range h.backend.requests {
			got = append(got, r.headers["x-envoy-attempt-count"]+" "+r.headers["x-envoy-expected-rq-timeout-ms"])
		}
		if diff := cmp.Diff([]string{"1 3000", "2 3000"}, got); diff != "" {
			t.Error(diff)
		}
	})
}
