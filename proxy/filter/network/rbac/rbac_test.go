package rbac

import (
	"net/netip"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"weft.mesh/weft/proxy/stream"
)

func parse(t *testing.T, json string) (*Filter, error) {
	t.Helper()
	var c rbacv3.RBAC
	if err := protojson.Unmarshal([]byte(json), &c); err != nil {
		t.Fatal(err)
	}
	return New(&c)
}

func TestConnections(t *testing.T) {
	port := `"policies":{"p":{"permissions":[{"destinationPort":6379}],"principals":[{"any":true}]}}`
	http := `"policies":{"p":{"permissions":[{"urlPath":{"path":{"prefix":"/"}}}],"principals":[{"any":true}]}}`
	c := &stream.ConnInfo{Local: netip.MustParseAddrPort("10.0.0.1:6379"), Remote: netip.MustParseAddrPort("10.0.0.2:999")}
	for name, x := range map[string]struct {
		json    string
		ok      bool
		details string
	}{
		"allowed":                      {`{"rules":{"action":"ALLOW",` + port + `}}`, true, ""},
		"denied":                       {`{"rules":{"action":"DENY",` + port + `}}`, false, "rbac_access_denied_matched_policy[p]"},
		"nobody is allowed":            {`{"rules":{"action":"ALLOW"}}`, false, "rbac_access_denied_matched_policy[none]"},
		"HTTP conditions find nothing": {`{"rules":{"action":"ALLOW",` + http + `}}`, false, "rbac_access_denied_matched_policy[none]"},
		"no rules":                     {`{"statPrefix":"tcp."}`, true, ""},
	} {
		f, err := parse(t, x.json)
		if err != nil {
			t.Fatal(err)
		}
		if ok, details := f.Connection(c); ok != x.ok || details != x.details {
			t.Errorf("%s: %v %q, want %v %q", name, ok, details, x.ok, x.details)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, json := range map[string]string{
		"shadow_rules": `{"statPrefix":"x","shadowRules":{}}`, "delay_deny": `{"statPrefix":"x","delayDeny":"1s"}`,
		"enforcement_type": `{"statPrefix":"x","enforcementType":"CONTINUOUS"}`,
	} {
		if _, err := parse(t, json); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
