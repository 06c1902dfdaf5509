package route

import (
	"fmt"
	"strings"

	"weft.mesh/weft/proxy/stream"
)

func (h *HeaderOps) build() error {
	if err := h.Request.build(); err != nil {
		return fmt.Errorf("request headers: %w", err)
	}
	if err := h.Response.build(); err != nil {
		return fmt.Errorf("response headers: %w", err)
	}
	return nil
}

func (o *Ops) build() error {
	for _, n := range o.Remove {
		if err := mutable(n); err != nil {
			return fmt.Errorf("remove %w", err)
		}
	}
	for i := range o.Mutations {
		m := &o.Mutations[i]
		if err := mutable(m.Name); err != nil {
			return fmt.Errorf("add %w", err)
		}
		t, err := ParseTemplate(m.Value)
		if err != nil {
			return fmt.Errorf("add %q: %w", m.Name, err)
		}
		m.Template = t
	}
	return nil
}

// mutable refuses names that header operations may not touch: the host and
// pseudo-headers have fields of their own, and framing belongs to the codecs.
func mutable(name string) error {
	switch strings.ToLower(name) {
	case "":
		return fmt.Errorf("%q: empty header name", name)
	case "host", "content-length", "transfer-encoding", "connection", "upgrade", "keep-alive", "proxy-connection", "te":
		return fmt.Errorf("%q: this header cannot be changed by header operations", name)
	}
	for i := range len(name) {
		if !tokenChar(name[i]) {
			return fmt.Errorf("%q: not a header name", name)
		}
	}
	return nil
}

func tokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// Env is what value templates can see. Buf is where formatted values are kept:
// they alias it, so it must live as long as the message.
type Env struct {
	Info *stream.Info
	Req  *stream.Request
	Resp *stream.Response
	Buf  []byte
}

// Apply carries the operations out on f: removals first, then mutations in
// order. A value that comes out empty is left out unless KeepEmpty is set
// (Envoy's keep_empty_value).
func (o *Ops) Apply(f *stream.Fields, e *Env) {
	for _, n := range o.Remove {
		f.Del(n)
	}
	for i := range o.Mutations {
		o.Mutations[i].apply(f, e)
	}
}

func (m *Mutation) apply(f *stream.Fields, e *Env) {
	v := stream.Bytes(m.Value)
	if m.Template != nil {
		v = m.Template.value(e)
	}
	if len(v) == 0 && !m.KeepEmpty {
		return
	}
	switch m.Action {
	case AppendOrAdd:
		f.Append(stream.Bytes(m.Name), v)
	case AddIfAbsent:
		if !f.Has(m.Name) {
			f.Append(stream.Bytes(m.Name), v)
		}
	case OverwriteOrAdd:
		f.SetBytes(m.Name, v)
	case OverwriteIfExists:
		if f.Has(m.Name) {
			f.SetBytes(m.Name, v)
		}
	}
}
