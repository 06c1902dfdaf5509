package convert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/model"
)

// secret reads the certificates of a Secret: type kubernetes.io/tls, or Opaque with tls.crt, tls.key and ca.crt, or Istio's older
// names cert, key and cacert. Content that cannot be used is no error, because it may be none of the mesh's business: the value says what is
// wrong, and whoever refers to it gets that as a condition.
func (c *conv) secret(s *corev1.Secret) []model.Object {
	get := func(names ...string) []byte {
		for _, n := range names {
			if v, ok := s.Data[n]; ok {
				return v
			}
			if v, ok := s.StringData[n]; ok {
				return []byte(v)
			}
		}
		return nil
	}
	for k, v := range s.StringData {
		if strings.HasPrefix(v, hidden) {
			c.fail(CodeInvalidValue, "stringData["+k+"]", "", "this is what weft shows in place of the content", "write the content, or leave the Secret out")
		}
	}
	out := &model.Secret{Meta: c.meta(), Cert: get("tls.crt", "cert"), Key: get("tls.key", "key"), CA: get("ca.crt", "cacert"), CRL: get("ca.crl", "crl")}
	out.Annotations = nil // kubectl writes whole objects, keys included, into last-applied-configuration
	out.Problem = secretProblem(out)
	if out.Problem != "" && s.Type == corev1.SecretTypeTLS {
		c.warn(CodeInvalidValue, "data", "", out.Problem, "whoever refers to the Secret serves nothing with it")
	}
	return []model.Object{out}
}

func secretProblem(s *model.Secret) string {
	switch {
	case len(s.Cert) == 0 && len(s.Key) == 0 && len(s.CA) == 0:
		return "the Secret has neither tls.crt and tls.key nor ca.crt"
	case len(s.Cert) == 0 && len(s.Key) == 0:
		return RootsProblem(s.CA)
	case len(s.Cert) == 0:
		return "tls.crt is missing"
	case len(s.Key) == 0:
		return "tls.key is missing"
	}
	if _, err := tls.X509KeyPair(s.Cert, s.Key); err != nil {
		return "tls.crt and tls.key are not a certificate and its key: " + strings.TrimPrefix(err.Error(), "tls: ")
	}
	if len(s.CA) > 0 {
		return RootsProblem(s.CA)
	}
	return ""
}

// RootsProblem says what is wrong with PEM text that should hold certificates; "" if nothing is.
func RootsProblem(text []byte) string {
	n := 0
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return "ca.crt holds a certificate that cannot be read"
		}
		n++
	}
	if n == 0 {
		return "ca.crt holds no certificate"
	}
	return ""
}

func (c *conv) configMap(m *corev1.ConfigMap) []model.Object {
	out := &model.ConfigMap{Meta: c.meta()}
	if text, ok := m.Data["ca.crt"]; ok {
		out.CA = []byte(text)
		out.Problem = RootsProblem(out.CA)
	} else {
		out.Problem = "the ConfigMap has no ca.crt"
	}
	return []model.Object{out}
}

// hideValues takes what was written out of the messages about a Secret.
func (w *walker) hideValues() {
	for i := range w.diags {
		d := &w.diags[i]
		if d.Value != "" && (strings.HasPrefix(d.Field, "data") || strings.HasPrefix(d.Field, "stringData") || strings.HasPrefix(d.Field, "metadata.annotations")) {
			d.Hint = strings.ReplaceAll(d.Hint, d.Value, "…")
			d.Message = strings.ReplaceAll(d.Message, d.Value, "…")
			d.Value = ""
		}
	}
}

// hidden begins what is shown in place of a Secret's values.
const hidden = "(hidden: "

// Shown is the object as people may see it: of a Secret, the names of what it holds and how long that is.
func (o *Object) Shown() json.RawMessage {
	if o.Key.Kind != model.KindSecret {
		return o.Raw
	}
	var m map[string]any
	if json.Unmarshal(o.Raw, &m) != nil {
		return json.RawMessage("{}")
	}
	for _, field := range []string{"data", "stringData"} {
		values, _ := m[field].(map[string]any)
		for k, v := range values {
			text, _ := v.(string)
			values[k] = hidden + strconv.Itoa(len(text)) + " characters)"
		}
	}
	if meta, ok := m["metadata"].(map[string]any); ok {
		delete(meta, "annotations") // kubectl writes whole objects into last-applied-configuration
	}
	out, err := marshal(m)
	if err != nil {
		return json.RawMessage("{}")
	}
	return bytes.TrimSpace(out)
}
