package hcm

import (
	"testing"

	"weft.mesh/weft/proxy/stream"
)

// A name whose length is listed wrongly would never be found, and then trusted or forwarded as it came.
func TestEveryKnownHeaderIsFound(t *testing.T) {
	for name, get := range map[string]func(k *known) []byte{
		"content-type":            func(k *known) []byte { return k.contentType },
		"grpc-timeout":            func(k *known) []byte { return k.grpcTimeout },
		"x-forwarded-for":         func(k *known) []byte { return k.xff },
		"x-forwarded-proto":       func(k *known) []byte { return k.proto },
		"x-request-id":            func(k *known) []byte { return k.requestID },
		"x-forwarded-client-cert": func(k *known) []byte { return k.xfcc },
		"traceparent":             func(k *known) []byte { return k.traceparent },
		"b3":                      func(k *known) []byte { return k.b3 },
		"x-b3-traceid":            func(k *known) []byte { return k.b3trace },
		"x-b3-spanid":             func(k *known) []byte { return k.b3span },
		"x-b3-sampled":            func(k *known) []byte { return k.b3sampled },
		"x-b3-flags":              func(k *known) []byte { return k.b3flags },
	} {
		for _, spelt := range []string{name, string(name[0]-32) + name[1:]} {
			var f stream.Fields
			f.Add(spelt, "value")
			var k known
			k.scan(&f)
			if string(get(&k)) != "value" {
				t.Errorf("%s is not found", spelt)
			}
			f.Reset()
			f.Add(spelt, "")
			k = known{}
			if k.scan(&f); get(&k) == nil {
				t.Errorf("%s without a value is not found", spelt)
			}
		}
	}
	var f stream.Fields
	f.Add("X-Envoy-Anything", "")
	f.Add("Expect", "100-continue")
	var k known
	if k.scan(&f); !k.envoy || !k.expect {
		t.Error("x-envoy-* or expect is not found")
	}
}
