package compile

import (
	"crypto/tls"
	"strings"
)

// suitesByName are the cipher suites of TLS 1.2 that crypto/tls has and does not hold for
// broken, by the names that Envoy uses (BoringSSL's, which are OpenSSL's).
var suitesByName = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
}

// cipherSuites reads names, of which several in brackets are equally good to Envoy:
// [a|b]. The order is crypto/tls's: it prefers what is fast and safe on both machines.
func cipherSuites(names []string) ([]uint16, error) {
	var out []uint16
	for i, n := range names {
		inner, ok := strings.CutPrefix(n, "[")
		if ok {
			if inner, ok = strings.CutSuffix(inner, "]"); !ok {
				return nil, index("", i, bad("", n, "no ] at the end"))
			}
		}
		for name := range strings.SplitSeq(inner, "|") {
			id, ok := suitesByName[name]
			if !ok {
				return nil, index("", i, bad("", name, "not a supported suite of TLS 1.2; want ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES256-GCM-SHA384 and the like"))
			}
			out = append(out, id)
		}
	}
	return out, nil
}
