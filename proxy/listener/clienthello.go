package listener

import (
	"errors"
	"strings"
)

// maxHello bounds a ClientHello with its record headers, in bytes (Envoy's tls_inspector: 16 KiB).
const maxHello = 16 << 10

// maxRecords bounds the records that a ClientHello is spread over.
const maxRecords = 32

// maxALPN bounds the protocols taken from a ClientHello.
const maxALPN = 32

var (
	// errNotTLS: the bytes are no TLS ClientHello.
	errNotTLS = errors.New("not a tls client hello")
	// errHello: they begin like one but break the rules or the bounds.
	errHello = errors.New("malformed tls client hello")
)

// hello is what a ClientHello says that chains match on.
type hello struct {
	sni  string // lower case, "" if none
	alpn []string
}

// parseHello reads a ClientHello (RFC 8446 section 4.1.2) from the first bytes of
// a connection; it may be spread over several records (section 5.1). need > 0 asks for at
// least so many bytes in all, and says nothing yet. It is strict where lengths are concerned and knows two extensions.
func parseHello(b []byte) (h hello, need int, err error) {
	msg, need, err := helloMessage(b)
	if need > 0 || err != nil {
		return hello{}, need, err
	}
	r := reader(msg)
	r.skip(2 + 32)                    // legacy_version, random
	if id := r.vec8(); len(id) > 32 { // legacy_session_id
		return hello{}, 0, errHello
	}
	if cs := r.vec16(); len(cs) < 2 || len(cs)%2 != 0 {
		return hello{}, 0, errHello
	}
	if cm := r.vec8(); len(cm) < 1 {
		return hello{}, 0, errHello
	}
	if r.bad() {
		return hello{}, 0, errHello
	}
	if len(r) == 0 { // TLS 1.2 and older may have no extensions
		return hello{}, 0, nil
	}
	ext := reader(r.vec16())
	if r.bad() || len(r) != 0 || !h.extensions(ext) {
		return hello{}, 0, errHello
	}
	return h, 0, nil
}

// helloMessage collects the body of the handshake message. It copies only if it is spread over records.
func helloMessage(b []byte) (msg []byte, need int, err error) {
	if len(b) > 0 && b[0] != 22 { // handshake
		return nil, 0, errNotTLS
	}
	if len(b) > 1 && b[1] != 3 { // major version of the record layer
		return nil, 0, errNotTLS
	}
	var body []byte
	want := 4 // handshake header, then the message
	for at, records := 0, 0; ; records++ {
		if records == maxRecords {
			return nil, 0, errHello
		}
		if len(b) < at+5 {
			return within(at + 5)
		}
		if b[at] != 22 || b[at+1] != 3 {
			return nil, 0, errHello
		}
		n := int(b[at+3])<<8 | int(b[at+4])
		if n == 0 || at+5+n > maxHello {
			return nil, 0, errHello
		}
		if at == 0 && len(b) > 5 && b[5] != 1 { // client_hello
			return nil, 0, errNotTLS
		}
		if len(b) < at+5+n {
			return nil, at + 5 + n, nil
		}
		frag := b[at+5 : at+5+n]
		if at == 0 {
			body = frag[:len(frag):len(frag)]
		} else {
			body = append(body, frag...)
		}
		at += 5 + n
		if len(body) >= 4 {
			want = 4 + (int(body[1])<<16 | int(body[2])<<8 | int(body[3]))
			if want > maxHello {
				return nil, 0, errHello
			}
		}
		if len(body) >= 4 && len(body) >= want {
			if body[0] != 1 {
				return nil, 0, errNotTLS
			}
			return body[4:want], 0, nil
		}
	}
}

// within turns a number of bytes that are needed into a refusal if it is above the bound.
func within(n int) ([]byte, int, error) {
	if n > maxHello {
		return nil, 0, errHello
	}
	return nil, n, nil
}

func (h *hello) extensions(r reader) bool {
	seen := map[uint16]bool{}
	for len(r) > 0 {
		typ := r.u16()
		data := reader(r.vec16())
		if r.bad() || seen[typ] {
			return false
		}
		seen[typ] = true
		ok := true
		switch typ {
		case 0:
			ok = h.serverName(data)
		case 16:
			ok = h.protocols(data)
		}
		if !ok {
			return false
		}
	}
	return !r.bad()
}

// serverName reads RFC 6066 section 3: one host_name, no IP literal is looked for.
func (h *hello) serverName(r reader) bool {
	list := reader(r.vec16())
	if r.bad() || len(r) != 0 || len(list) == 0 {
		return false
	}
	for len(list) > 0 {
		typ := list.u8()
		name := list.vec16()
		if list.bad() || len(name) == 0 || len(name) > 255 {
			return false
		}
		if typ != 0 {
			continue
		}
		if h.sni != "" {
			return false
		}
		for _, c := range name {
			if c <= ' ' || c >= 0x7f {
				return false
			}
		}
		h.sni = strings.ToLower(string(name))
	}
	return true
}

// protocols reads RFC 7301 section 3.1.
func (h *hello) protocols(r reader) bool {
	list := reader(r.vec16())
	if r.bad() || len(r) != 0 || len(list) == 0 {
		return false
	}
	for len(list) > 0 {
		p := list.vec8()
		if list.bad() || len(p) == 0 || len(h.alpn) == maxALPN {
			return false
		}
		h.alpn = append(h.alpn, string(p))
	}
	return true
}

// reader takes values off the front. After reading past the end it is nil, which [reader.bad] tells.
type reader []byte

func (r *reader) skip(n int) []byte {
	if *r == nil || len(*r) < n {
		*r = nil
		return nil
	}
	v := (*r)[:n]
	*r = (*r)[n:]
	return v
}

func (r *reader) u8() int {
	if v := r.skip(1); v != nil {
		return int(v[0])
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.skip(2); v != nil {
		return uint16(v[0])<<8 | uint16(v[1])
	}
	return 0
}

func (r *reader) vec8() []byte  { return r.skip(r.u8()) }
func (r *reader) vec16() []byte { return r.skip(int(r.u16())) }
func (r *reader) bad() bool     { return *r == nil }
