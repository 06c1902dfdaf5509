package convert_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

func TestMeshConfigMeansWhatItSays(t *testing.T) {
	base := model.Mesh{AccessLogFile: "/dev/stdout", RegistryOnly: true, TraceSampling: 5}
	for text, want := range map[string]model.Mesh{
		"{}":                  base,
		"accessLogFile: \"\"": {RegistryOnly: true, TraceSampling: 5},
		`
trustDomain: td.example
rootNamespace: istio-config
accessLogFile: /tmp/log
accessLogEncoding: JSON
accessLogFormat: '{"method": "%REQ(:METHOD)%"}'
connectTimeout: 3s
enableAutoMtls: false
outboundTrafficPolicy: {mode: ALLOW_ANY}
defaultConfig: {tracing: {sampling: 42.5}}
localityLbSetting: {distribute: [{from: eu, to: {eu: 100}}]}
`: {TrustDomain: "td.example", RootNamespace: "istio-config", AccessLogFile: "/tmp/log", AccessLogJSON: true, AccessLogFormat: `{"method": "%REQ(:METHOD)%"}`,
			ConnectTimeout: 3 * time.Second, DisableAutoMTLS: true, TraceSampling: 42.5,
			LocalityLB: &model.LocalityLB{Distribute: []model.Distribute{{From: "eu", To: map[string]uint32{"eu": 100}}}}},
		"{ingressControllerMode: DEFAULT, ingressClass: edge, ingressSelector: edge, ingressService: edge/gateway}": {AccessLogFile: "/dev/stdout", RegistryOnly: true, TraceSampling: 5,
			Ingress: model.IngressSettings{Unclassed: true, Class: "edge", Selector: "edge", Service: "edge/gateway"}},
		"ingressControllerMode: \"OFF\"":               {AccessLogFile: "/dev/stdout", RegistryOnly: true, TraceSampling: 5, Ingress: model.IngressSettings{Off: true}},
		"ingressControllerMode: STRICT":                base,
		"outboundTrafficPolicy: {mode: REGISTRY_ONLY}": base,
		"defaultConfig: {tracing: {sampling: 0}}":      {AccessLogFile: "/dev/stdout", RegistryOnly: true, TraceSampling: -1},
		`{"localityLbSetting": {"enabled": false}}`:    {AccessLogFile: "/dev/stdout", RegistryOnly: true, TraceSampling: 5, LocalityLB: &model.LocalityLB{Disabled: true}},
	} {
		got, err := convert.MeshConfig(text, base)
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", text, err, d)
		}
	}
}

func TestMeshConfigIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		"accessLog: /dev/stdout":                                      "accessLog: not supported; supported are trustDomain",
		"proxyHttpPort: 15002":                                        "proxyHttpPort: not supported",
		"ingressClass: a b":                                           `ingressClass "a b"`,
		"ingressSelector: \"\"":                                       `ingressSelector ""`,
		"ingressService: a/b/c":                                       `ingressService "a/b/c"`,
		"ingressControllerMode: SOMETIMES":                            "invalid value",
		"enableTracing: false":                                        "enableTracing: not supported", // though it is the zero value
		"defaultConfig: {concurrency: 0}":                             "defaultConfig.concurrency: not supported",
		"defaultConfig: {tracing: {zipkin: {address: a}}}":            "defaultConfig.tracing.zipkin: not supported",
		"outboundTrafficPolicy: {mode: ANY}":                          "invalid value",
		"outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}":        "outboundTrafficPolicy.mode ALLOW_ANY_DYNAMIC_DNS",
		"trustDomain: a/b":                                            `trustDomain: trust domain "a/b"`,
		"rootNamespace: a/b":                                          `rootNamespace "a/b"`,
		"accessLogFile: log":                                          `accessLogFile "log": want an absolute path`,
		"{accessLogEncoding: JSON, accessLogFormat: what}":            "want a JSON object",
		"connectTimeout: 0s":                                          "connectTimeout 0s",
		"connectTimeout: soon":                                        `invalid google.protobuf.Duration value "soon"`,
		"defaultConfig: {tracing: {sampling: 101}}":                   "sampling 101",
		"localityLbSetting: {distribute: [{from: eu, to: {eu: 50}}]}": "do not sum to 100",
		"localityLbSetting: {zone: a}":                                "unknown field",
		"a: 1\na: 2":                                                  "already set",
		"[1]":                                                         "want a mapping",
		"trustDomain: [":                                              "no YAML",
	} {
		if got, err := convert.MeshConfig(text, model.Mesh{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, error %v; want %q", text, got, err, want)
		}
	}
}
