package rbac

import (
	"net/netip"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

const deny = `{"rules":{"action":"DENY","policies":{"ns[default]-policy[deny-all]-rule[0]":{"permissions":[{"urlPath":{"path":{"prefix":"/admin"}}}],"principals":[{"any":true}]}}}}`

func parse(t *testing.T, json string) (*Filter, error) {
	t.Helper()
	var c rbacv3.RBAC
	if err := protojson.Unmarshal([]byte(json), &c); err != nil {
		t.Fatal(err)
	}
	return New(&c)
}

func ask(f *Filter, path string, route any) filter.Verdict {
	c := &stream.ConnInfo{Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("10.0.0.2:999")}
	s := &filter.Stream{Conn: c, Req: &stream.Request{Method: []byte("GET"), Path: []byte(path)}, Info: &stream.Info{Conn: c}}
	if route != nil {
		s.PerRoute = map[string]any{Name: route}
	}
	return f.Request(s)
}

func TestDenialIsEnvoys(t *testing.T) {
	f, err := parse(t, deny)
	if err != nil {
		t.Fatal(err)
	}
	if v := ask(f, "/public", nil); v.Reply != nil {
		t.Errorf("denied: %+v", v.Reply)
	}
	r := ask(f, "/admin", nil).Reply
	if r == nil || r.Status != 403 || string(r.Body) != "RBAC: access denied" || r.Details != "rbac_access_denied_matched_policy[ns[default]-policy[deny-all]-rule[0]]" {
		t.Errorf("reply %+v", r)
	}
}

func TestARouteReplacesThePolicies(t *testing.T) {
	f, err := parse(t, deny)
	if err != nil {
		t.Fatal(err)
	}
	open, err := Route(&rbacv3.RBACPerRoute{})
	if err != nil {
		t.Fatal(err)
	}
	if ask(f, "/admin", open).Reply != nil {
		t.Error("a route without rules is guarded")
	}
	var c rbacv3.RBACPerRoute
	if err := protojson.Unmarshal([]byte(`{"rbac":{"rules":{"action":"ALLOW"}}}`), &c); err != nil {
		t.Fatal(err)
	}
	shut, err := Route(&c)
	if err != nil {
		t.Fatal(err)
	}
	if r := ask(f, "/public", shut).Reply; r == nil || r.Details != "rbac_access_denied_matched_policy[none]" {
		t.Errorf("reply %+v", r)
	}
}

func TestNoRulesAllowAll(t *testing.T) {
	f, err := parse(t, `{}`)
	if err != nil || ask(f, "/", nil).Reply != nil {
		t.Errorf("%v", err)
	}
}

func TestRefused(t *testing.T) {
	for name, json := range map[string]string{
		"shadow_rules":   `{"shadowRules":{}}`,
		"matcher":        `{"matcher":{}}`,
		"shadow_matcher": `{"shadowMatcher":{}}`,
	} {
		if _, err := parse(t, json); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
