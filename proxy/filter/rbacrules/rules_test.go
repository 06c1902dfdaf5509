package rbacrules

import (
	"net/netip"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
)

func compile(t *testing.T, json string) (*Rules, error) {
	t.Helper()
	var r rbacv3.RBAC
	if err := protojson.Unmarshal([]byte(json), &r); err != nil {
		t.Fatalf("%s: %v", json, err)
	}
	return Compile(&r)
}

// one is a policy set of one policy, in JSON.
func one(action, permission, principal string) string {
	return `{"action":"` + action + `","policies":{"ns[default]-policy[p]-rule[0]":{"permissions":[` + permission + `],"principals":[` + principal + `]}}}`
}

func conn(t *testing.T, id string) *stream.ConnInfo {
	t.Helper()
	c := &stream.ConnInfo{Local: netip.MustParseAddrPort("10.0.0.2:8080"), Remote: netip.MustParseAddrPort("10.0.0.1:40000"), SNI: "outbound_.80_._.b"}
	if id != "" {
		p, err := spiffe.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		c.PeerID = p
	}
	return c
}

const (
	anyone = `{"any":true}`
	bob    = "spiffe://cluster.local/ns/default/sa/bob"
)

func TestDecisions(t *testing.T) {
	get := func(path string, headers ...string) *stream.Request {
		r := &stream.Request{Method: []byte("GET"), Authority: []byte("api:80"), Path: []byte(path)}
		for i := 0; i+1 < len(headers); i += 2 {
			r.Fields.Add(headers[i], headers[i+1])
		}
		return r
	}
	hdr := func(name, m string) string { return `{"header":{"name":"` + name + `",` + m + `}}` }
	for name, c := range map[string]struct {
		permission, principal string
		peer                  string
		req                   *stream.Request // nil: TCP
		client                string
		want                  bool // the policy matches
	}{
		"anyone, anything":                        {permission: anyone, principal: anyone, req: get("/"), want: true},
		"an exact principal":                      {permission: anyone, principal: `{"authenticated":{"principalName":{"exact":"` + bob + `"}}}`, peer: bob, req: get("/"), want: true},
		"another principal":                       {permission: anyone, principal: `{"authenticated":{"principalName":{"exact":"` + bob + `"}}}`, peer: bob + "by", req: get("/"), want: false},
		"a principal without mTLS":                {permission: anyone, principal: `{"authenticated":{"principalName":{"prefix":""}}}`, req: get("/"), want: false},
		"any principal, without mTLS":             {permission: anyone, principal: `{"authenticated":{}}`, req: get("/"), want: false},
		"any principal":                           {permission: anyone, principal: `{"authenticated":{}}`, peer: bob, req: get("/"), want: true},
		"a namespace by regex":                    {permission: anyone, principal: `{"authenticated":{"principalName":{"safeRegex":{"regex":".*/ns/default/.*"}}}}`, peer: bob, req: get("/"), want: true},
		"a regex must match whole":                {permission: anyone, principal: `{"authenticated":{"principalName":{"safeRegex":{"regex":"/ns/default/"}}}}`, peer: bob, req: get("/"), want: false},
		"not a principal, without mTLS":           {permission: anyone, principal: `{"notId":{"authenticated":{"principalName":{"exact":"` + bob + `"}}}}`, req: get("/"), want: true},
		"Istio's filter state is the peer":        {permission: anyone, principal: `{"filterState":{"key":"io.istio.peer_principal","stringMatch":{"exact":"` + bob + `"}}}`, peer: bob, req: get("/"), want: true},
		"the direct address":                      {permission: anyone, principal: `{"directRemoteIp":{"addressPrefix":"10.0.0.0","prefixLen":8}}`, req: get("/"), want: true},
		"the direct address, not the forwarded":   {permission: anyone, principal: `{"directRemoteIp":{"addressPrefix":"1.2.3.4","prefixLen":32}}`, req: get("/"), client: "1.2.3.4", want: false},
		"the forwarded address":                   {permission: anyone, principal: `{"remoteIp":{"addressPrefix":"1.2.3.4","prefixLen":32}}`, req: get("/"), client: "1.2.3.4", want: true},
		"the forwarded address, if there is none": {permission: anyone, principal: `{"remoteIp":{"addressPrefix":"10.0.0.1","prefixLen":32}}`, req: get("/"), want: true},
		"a path without its query":                {permission: `{"urlPath":{"path":{"exact":"/admin"}}}`, principal: anyone, req: get("/admin?x"), want: true},
		"a path prefix":                           {permission: `{"urlPath":{"path":{"prefix":"/a"}}}`, principal: anyone, req: get("/b"), want: false},
		"a method":                                {permission: hdr(":method", `"stringMatch":{"exact":"GET"}`), principal: anyone, req: get("/"), want: true},
		"a host is compared with its port":        {permission: hdr(":authority", `"stringMatch":{"exact":"api","ignoreCase":true}`), principal: anyone, req: get("/"), want: false},
		"one of two header lines":                 {permission: anyone, principal: hdr("x", `"stringMatch":{"exact":"2"}`), req: get("/", "x", "1", "x", "2"), want: true},
		"a missing header":                        {permission: anyone, principal: hdr("x", `"stringMatch":{"exact":"2"}`), req: get("/"), want: false},
		"presence":                                {permission: anyone, principal: hdr("x", `"presentMatch":true`), req: get("/", "x", ""), want: true},
		"absence":                                 {permission: anyone, principal: hdr("x", `"presentMatch":false`), req: get("/", "x", ""), want: false},
		"a port":                                  {permission: `{"destinationPort":8080}`, principal: anyone, req: get("/"), want: true},
		"another port":                            {permission: `{"destinationPort":8081}`, principal: anyone, req: get("/"), want: false},
		"a port range without its end":            {permission: `{"destinationPortRange":{"start":8000,"end":8080}}`, principal: anyone, req: get("/"), want: false},
		"a destination address":                   {permission: `{"destinationIp":{"addressPrefix":"10.0.0.2","prefixLen":32}}`, principal: anyone, req: get("/"), want: true},
		"a server name":                           {permission: `{"requestedServerName":{"prefix":"outbound_"}}`, principal: anyone, req: get("/"), want: true},
		"all of several":                          {permission: `{"andRules":{"rules":[{"destinationPort":8080},{"notRule":{"urlPath":{"path":{"exact":"/x"}}}}]}}`, principal: anyone, req: get("/"), want: true},
		"one of several":                          {permission: `{"orRules":{"rules":[{"destinationPort":1},{"destinationPort":8080}]}}`, principal: anyone, req: get("/"), want: true},
		"all of several identities":               {permission: anyone, principal: `{"andIds":{"ids":[{"any":true},{"orIds":{"ids":[{"authenticated":{}}]}}]}}`, req: get("/"), want: false},
		"TCP: a port":                             {permission: `{"destinationPort":8080}`, principal: anyone, want: true},
		"TCP: a path matches nothing":             {permission: `{"urlPath":{"path":{"prefix":""}}}`, principal: anyone, want: false},
		"TCP: a header matches nothing":           {permission: hdr(":method", `"stringMatch":{"prefix":""}`), principal: anyone, want: false},
		"TCP: a principal":                        {permission: anyone, principal: `{"authenticated":{"principalName":{"suffix":"/bob"}}}`, peer: bob, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			var client netip.Addr
			if c.client != "" {
				client = netip.MustParseAddr(c.client)
			}
			allow, err := compile(t, one("ALLOW", c.permission, c.principal))
			if err != nil {
				t.Fatal(err)
			}
			if ok, _ := allow.Check(conn(t, c.peer), c.req, client); ok != c.want {
				t.Errorf("ALLOW lets pass: %v, want %v", ok, c.want)
			}
			deny, err := compile(t, one("DENY", c.permission, c.principal))
			if err != nil {
				t.Fatal(err)
			}
			if ok, _ := deny.Check(conn(t, c.peer), c.req, client); ok == c.want {
				t.Errorf("DENY lets pass: %v, want %v", ok, !c.want)
			}
		})
	}
}

func TestDetailsNameThePolicy(t *testing.T) {
	two := `{"action":"DENY","policies":{
		"ns[default]-policy[b]-rule[0]":{"permissions":[{"any":true}],"principals":[{"any":true}]},
		"ns[default]-policy[a b]-rule[0]":{"permissions":[{"any":true}],"principals":[{"any":true}]}}}`
	r, err := compile(t, two)
	if err != nil {
		t.Fatal(err)
	}
	if _, got := r.Check(conn(t, ""), nil, netip.Addr{}); got != "rbac_access_denied_matched_policy[ns[default]-policy[a_b]-rule[0]]" {
		t.Errorf("details %q: want the first policy by name, without spaces", got)
	}
	r, err = compile(t, `{"action":"ALLOW"}`)
	if err != nil {
		t.Fatal(err)
	}
	if ok, got := r.Check(conn(t, ""), nil, netip.Addr{}); ok || got != "rbac_access_denied_matched_policy[none]" {
		t.Errorf("ALLOW of nobody: %v, %q", ok, got)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ json, want string }{
		"action LOG":           {`{"action":"LOG"}`, "only ALLOW and DENY"},
		"a condition":          {`{"policies":{"p":{"permissions":[{"any":true}],"principals":[{"any":true}],"condition":{}}}}`, "condition"},
		"audit logging":        {`{"auditLoggingOptions":{}}`, "audit_logging_options"},
		"metadata":             {one("DENY", anyone, `{"metadata":{"filter":"jwt"}}`), "Metadata"},
		"permission metadata":  {one("DENY", `{"metadata":{"filter":"jwt"}}`, anyone), "Metadata"},
		"another filter state": {one("DENY", anyone, `{"filterState":{"key":"x","stringMatch":{"exact":"1"}}}`), "filter_state"},
		"no principals":        {`{"policies":{"p":{"permissions":[{"any":true}]}}}`, "at least one"},
		"an empty rule":        {one("DENY", `{}`, anyone), "not supported"},
		"an empty and":         {one("DENY", `{"andRules":{}}`, anyone), "empty set"},
		"any: false":           {one("DENY", `{"any":false}`, anyone), "must be true"},
		"a bad regex":          {one("DENY", anyone, `{"authenticated":{"principalName":{"safeRegex":{"regex":"("}}}}`), "regex"},
		"a bad address":        {one("DENY", anyone, `{"remoteIp":{"addressPrefix":"x"}}`), "address range"},
		"a bad prefix length":  {one("DENY", anyone, `{"remoteIp":{"addressPrefix":"10.0.0.0","prefixLen":33}}`), "address range"},
		"inside a negation":    {one("DENY", `{"notRule":{"metadata":{"filter":"x"}}}`, anyone), "not_rule"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := compile(t, c.json); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	p := &rbacv3.Principal{}
	p.ProtoReflect().SetUnknown([]byte{0x98, 0x06, 0x01}) // field 99
	r := &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{"p": {
		Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}}, Principals: []*rbacv3.Principal{p},
	}}}
	if _, err := Compile(r); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("error %v, want a refusal of the unknown field", err)
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	r, err := compile(t, one("ALLOW", `{"andRules":{"rules":[{"destinationPort":8080},{"urlPath":{"path":{"prefix":"/a"}}}]}}`, `{"authenticated":{"principalName":{"suffix":"/bob"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c, req := conn(t, bob), &stream.Request{Method: []byte("GET"), Path: []byte("/a?b")}
	if n := testing.AllocsPerRun(1000, func() {
		if ok, _ := r.Check(c, req, netip.Addr{}); !ok {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Errorf("allocs per check = %v, want 0", n)
	}
}
