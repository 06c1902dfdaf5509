package inject

import (
	"strings"
	"testing"
)

func TestParseConfigTakesItsPartOfTheMeshConfig(t *testing.T) {
	c, rest, err := ParseConfig("revision: canary", `
trustDomain: mesh.test
accessLogFile: /dev/stdout
enablePrometheusMerge: false
defaultConfig:
  concurrency: 3
  holdApplicationUntilProxyStarts: true
  tracing: {sampling: 10}
`)
	check(t, err)
	if c.Revision != "canary" || c.TrustDomain != "mesh.test" || !c.NoPrometheusMerge || c.Defaults.GetConcurrency().GetValue() != 3 || !c.Defaults.GetHoldApplicationUntilProxyStarts().GetValue() {
		t.Errorf("%+v", c)
	}
	const want = "accessLogFile: /dev/stdout\ndefaultConfig:\n  tracing:\n    sampling: 10\ntrustDomain: mesh.test\n"
	if rest != want {
		t.Errorf("rest = %q, want %q", rest, want)
	}
	for _, text := range []string{"", "{}", "defaultConfig: {statNameLength: 189}"} {
		if _, rest, err := ParseConfig("", text); err != nil || rest != "" {
			t.Errorf("%q: %q, %v", text, rest, err)
		}
	}
	if c, _, err := ParseConfig("cni: {enabled: true}", ""); err != nil || !c.CNI.Enabled {
		t.Errorf("the node agent: %v", err)
	}
	for text, want := range map[string]string{
		"defaultConfig: {concurrency: many}": "defaultConfig", "defaultConfig: {interceptionMode: TPROXY}": "only REDIRECT",
		"enablePrometheusMerge: perhaps": "enablePrometheusMerge", "[]": "mapping", "{": "no YAML",
	} {
		if _, _, err := ParseConfig("", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
