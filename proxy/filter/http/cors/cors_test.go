package cors

import (
	"strings"
	"testing"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

func parse(t *testing.T, json string) (*Policy, error) {
	t.Helper()
	var c corsv3.CorsPolicy
	if err := protojson.Unmarshal([]byte(json), &c); err != nil {
		t.Fatal(err)
	}
	return Route(&c)
}

const shop = `"allowOriginStringMatch":[{"exact":"https://shop.example"},{"prefix":"https://dev."},{"safeRegex":{"regex":"https://.*\\.pre\\.example"}}]`

// visit runs a request and its response through the filter. It returns the status of a local reply
// (0: passed) and the response's access-control-* headers.
func visit(t *testing.T, p *Policy, method string, headers ...string) (int, string) {
	t.Helper()
	s := &filter.Stream{Req: &stream.Request{Method: []byte(method)}, Info: &stream.Info{}, State: make([]any, 1)}
	for i := 0; i+1 < len(headers); i += 2 {
		s.Req.Fields.Add(headers[i], headers[i+1])
	}
	if p != nil {
		s.PerRoute = map[string]any{Name: p}
	}
	f := &Filter{}
	v := f.Request(s)
	s.Req.Fields.Del("origin") // what a route's header operations may do meanwhile
	s.Resp = &stream.Response{Status: 200}
	status := 0
	if v.Reply != nil {
		status = v.Reply.Status
		for _, h := range v.Reply.Headers {
			s.Resp.Fields.Add(h.Name, h.Value)
		}
	} else {
		s.Resp.Fields.Add("access-control-allow-origin", "https://upstream.example")
	}
	f.Response(s)
	var out []string
	for _, h := range s.Resp.Fields.All() {
		out = append(out, strings.TrimPrefix(string(h.Name), "access-control-")+"="+string(h.Value))
	}
	return status, strings.Join(out, " ")
}

func TestOrigins(t *testing.T) {
	const upstreams = "allow-origin=https://upstream.example"
	ask := []string{"access-control-request-method", "PUT", "access-control-request-headers", "x-a, x-b"}
	from := func(o string, more ...string) []string { return append([]string{"origin", o}, more...) }
	full := `{` + shop + `,"allowMethods":"GET,PUT","allowHeaders":"x-a","exposeHeaders":"x-c","maxAge":"86400","allowCredentials":true}`
	for name, c := range map[string]struct {
		json    string
		method  string
		headers []string
		status  int
		want    string
	}{
		"a preflight": {full, "OPTIONS", from("https://shop.example", ask...), 200,
			"allow-methods=GET,PUT allow-headers=x-a max-age=86400 allow-origin=https://shop.example allow-credentials=true expose-headers=x-c"},
		"a preflight of a prefix":         {`{` + shop + `}`, "OPTIONS", from("https://dev.example", ask...), 200, "allow-origin=https://dev.example"},
		"a preflight of a regex":          {`{` + shop + `}`, "OPTIONS", from("https://a.b.pre.example", ask...), 200, "allow-origin=https://a.b.pre.example"},
		"a regex takes whole origins":     {`{` + shop + `}`, "OPTIONS", from("https://a.pre.example.evil", ask...), 0, upstreams},
		"a preflight of another origin":   {full, "OPTIONS", from("https://evil.example", ask...), 0, upstreams},
		"a preflight that is not passed":  {`{` + shop + `,"forwardNotMatchingPreflights":false}`, "OPTIONS", from("https://evil.example", ask...), 200, ""},
		"OPTIONS that is no preflight":    {full, "OPTIONS", from("https://shop.example"), 0, "allow-origin=https://shop.example allow-credentials=true expose-headers=x-c"},
		"a simple request":                {full, "GET", from("https://shop.example", ask...), 0, "allow-origin=https://shop.example allow-credentials=true expose-headers=x-c"},
		"a request of another origin":     {full, "GET", from("https://evil.example"), 0, upstreams},
		"a request of no origin":          {full, "GET", nil, 0, upstreams},
		"an empty origin":                 {full, "GET", from(""), 0, upstreams},
		"nobody is allowed":               {`{}`, "GET", from("https://shop.example"), 0, upstreams},
		"anyone":                          {`{"allowOriginStringMatch":[{"exact":"*"}],"allowMethods":"*","allowHeaders":"*"}`, "OPTIONS", from("http://x:8080", ask...), 200, "allow-methods=PUT allow-headers=x-a, x-b allow-origin=http://x:8080"},
		"anyone with credentials":         {`{"allowOriginStringMatch":[{"exact":"*"}],"allowMethods":"*","allowHeaders":"*","allowCredentials":true}`, "OPTIONS", from("http://x", ask...), 200, "allow-methods=PUT allow-headers=x-a, x-b allow-origin=http://x allow-credentials=true"},
		"a wildcard that nobody asks for": {`{"allowOriginStringMatch":[{"exact":"*"}],"allowHeaders":"*","allowCredentials":true}`, "OPTIONS", from("http://x", "access-control-request-method", "PUT"), 200, "allow-origin=http://x allow-credentials=true"},
		"switched off":                    {`{` + shop + `,"filterEnabled":{"defaultValue":{"numerator":0}}}`, "GET", from("https://shop.example"), 0, upstreams},
		"switched on":                     {`{` + shop + `,"filterEnabled":{"defaultValue":{"numerator":100}}}`, "GET", from("https://shop.example"), 0, "allow-origin=https://shop.example"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parse(t, c.json)
			if err != nil {
				t.Fatal(err)
			}
			status, got := visit(t, p, c.method, c.headers...)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
	if status, got := visit(t, nil, "OPTIONS", from("https://shop.example", ask...)...); status != 0 || got != upstreams {
		t.Errorf("a route without a policy: %d %s", status, got)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ json, want string }{
		"shadow mode":         {`{"shadowEnabled":{"defaultValue":{"numerator":1}}}`, "shadow_enabled"},
		"private networks":    {`{"allowPrivateNetworkAccess":true}`, "allow_private_network_access"},
		"a runtime key":       {`{"filterEnabled":{"defaultValue":{"numerator":1},"runtimeKey":"x"}}`, "runtime_key"},
		"an age that is none": {`{"maxAge":"1h"}`, "max_age"},
		"a broken regex":      {`{"allowOriginStringMatch":[{"safeRegex":{"regex":"("}}]}`, "allow_origin_string_match[0]"},
		"a line in a header":  {`{"allowHeaders":"a\r\nb: c"}`, "allow_headers"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(t, c.json); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestNoPolicyCostsNothing(t *testing.T) {
	s := &filter.Stream{Req: &stream.Request{Method: []byte("GET")}, Resp: &stream.Response{}, PerRoute: map[string]any{"other": 1}, State: make([]any, 1)}
	f := &Filter{}
	if n := testing.AllocsPerRun(100, func() { f.Request(s); f.Response(s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
