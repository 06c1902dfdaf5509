package listener

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/transport"
)

// FuzzClientHello holds the sniffer to a slow reference in both directions (what it accepts, what it
// refuses and what it says of it), to crypto/tls, which will read the same bytes behind it, and to itself: however the
// bytes arrive, the verdict is the same and it never asks for more than its bound.
func FuzzClientHello(f *testing.F) {
	f.Add(helloOf(&tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2"}}))
	f.Add(fragment(helloOf(&tls.Config{ServerName: "a.b", MaxVersion: tls.VersionTLS12}), 90))
	f.Add(smallHello(0, []byte("\x00\x04\x00\x00\x01A"), 16, []byte("\x00\x03\x02h2")))
	f.Add(smallHello(16, []byte("\x00\x06\x02h2\x02h3"), 16, []byte("\x00\x03\x02h2")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, need, err := parseHello(b)
		if need > maxHello || need > 0 && (need <= len(b) || err != nil) || need < 0 {
			t.Fatalf("asks for %d bytes with %d there (%v)", need, len(b), err)
		}
		if err != nil && !errors.Is(err, errHello) && !errors.Is(err, errNotTLS) {
			t.Fatalf("an error of its own: %v", err)
		}
		want, verdict := slowHello(b)
		if ours := verdictOf(need, err); ours != verdict {
			t.Fatalf("%s, the reference says %s", ours, verdict)
		}
		for n := range min(len(b), 600) { // a prefix never contradicts what is decided later
			early, more, perr := parseHello(b[:n])
			if more > 0 {
				continue
			}
			if verdictOf(more, perr) != verdict || early.sni != got.sni || !slices.Equal(early.alpn, got.alpn) {
				t.Fatalf("after %d bytes %+v (%v), after all %+v (%v)", n, early, perr, got, err)
			}
			break
		}
		if verdict != "taken" {
			return
		}
		if got.sni != want.sni || !slices.Equal(got.alpn, want.alpn) {
			t.Errorf("got %+v, the reference %+v", got, want)
		}
		if theirs, ok := reference(b); ok && (got.sni != theirs.sni || !slices.Equal(got.alpn, theirs.alpn)) { // crypto/tls is stricter about extensions that we do not read
			t.Errorf("got %+v, crypto/tls %+v", got, theirs)
		}
	})
}

// smallHello is a ClientHello with two extensions and nothing else that may be left out.
func smallHello(type1 uint16, data1 []byte, type2 uint16, data2 []byte) []byte {
	var ext []byte
	for _, e := range []struct {
		typ  uint16
		data []byte
	}{{type1, data1}, {type2, data2}} {
		ext = binary.BigEndian.AppendUint16(ext, e.typ)
		ext = append(binary.BigEndian.AppendUint16(ext, uint16(len(e.data))), e.data...)
	}
	msg := append([]byte{3, 3}, make([]byte, 32)...)
	msg = append(msg, 0, 0, 2, 0x13, 1, 1, 0)
	msg = append(binary.BigEndian.AppendUint16(msg, uint16(len(ext))), ext...)
	msg = append([]byte{1, 0, byte(len(msg) >> 8), byte(len(msg))}, msg...)
	return append([]byte{22, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

func verdictOf(need int, err error) string {
	switch {
	case need > 0:
		return "more"
	case errors.Is(err, errNotTLS):
		return "not TLS"
	case err != nil:
		return "malformed"
	}
	return "taken"
}

// reference is what crypto/tls understands of a ClientHello.
func reference(b []byte) (h hello, ok bool) {
	cfg := &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		h, ok = hello{sni: strings.ToLower(i.ServerName), alpn: i.SupportedProtos}, true
		return nil, errors.New("seen")
	}}
	_ = tls.Server(&sink{in: bytes.NewReader(b)}, cfg).Handshake()
	return h, ok
}

// slowHello reads a ClientHello in three passes: records, message, extensions.
func slowHello(b []byte) (hello, string) {
	if len(b) > 0 && b[0] != 22 || len(b) > 1 && b[1] != 3 {
		return hello{}, "not TLS"
	}
	var msg []byte
	rest := b
	for records := 0; ; records++ {
		if len(msg) >= 4 {
			if n := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3]); n > maxHello {
				return hello{}, "malformed"
			} else if len(msg) >= n {
				msg = msg[4:n]
				break
			}
		}
		at := len(b) - len(rest)
		if records == maxRecords || at+5 > maxHello {
			return hello{}, "malformed"
		}
		if len(rest) < 5 {
			return hello{}, "more"
		}
		n := int(binary.BigEndian.Uint16(rest[3:5]))
		if rest[0] != 22 || rest[1] != 3 || n == 0 || at+5+n > maxHello {
			return hello{}, "malformed"
		}
		if records == 0 && len(b) > 5 && b[5] != 1 {
			return hello{}, "not TLS"
		}
		if len(rest) < 5+n {
			return hello{}, "more"
		}
		msg, rest = append(msg, rest[5:5+n]...), rest[5+n:]
	}
	h, err := slowMessage(bytes.NewReader(msg))
	if err != nil {
		return hello{}, "malformed"
	}
	return h, "taken"
}

var errSlow = errors.New("malformed")

// slowVec reads a vector whose length takes so many bytes.
func slowVec(r *bytes.Reader, width int) ([]byte, error) {
	n := 0
	for range width {
		c, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		n = n<<8 | int(c)
	}
	if n > r.Len() {
		return nil, errSlow
	}
	v := make([]byte, n)
	_, _ = r.Read(v)
	return v, nil
}

func slowMessage(r *bytes.Reader) (h hello, err error) {
	fixed := make([]byte, 34)
	if n, _ := r.Read(fixed); n < 34 {
		return h, errSlow
	}
	session, err1 := slowVec(r, 1)
	suites, err2 := slowVec(r, 2)
	methods, err3 := slowVec(r, 1)
	if errors.Join(err1, err2, err3) != nil || len(session) > 32 || len(suites) == 0 || len(suites)%2 == 1 || len(methods) == 0 {
		return h, errSlow
	}
	if r.Len() == 0 {
		return h, nil
	}
	exts, err := slowVec(r, 2)
	if err != nil || r.Len() != 0 {
		return h, errSlow
	}
	seen := map[string]bool{}
	for e := bytes.NewReader(exts); e.Len() > 0; {
		typ := make([]byte, 2)
		if n, _ := e.Read(typ); n < 2 || seen[string(typ)] {
			return h, errSlow
		}
		seen[string(typ)] = true
		data, err := slowVec(e, 2)
		if err != nil {
			return h, err
		}
		switch string(typ) {
		case "\x00\x00":
			err = slowName(&h, bytes.NewReader(data))
		case "\x00\x10":
			err = slowProtocols(&h, bytes.NewReader(data))
		}
		if err != nil {
			return h, err
		}
	}
	return h, nil
}

func slowName(h *hello, r *bytes.Reader) error {
	list, err := slowVec(r, 2)
	if err != nil || r.Len() != 0 || len(list) == 0 {
		return errSlow
	}
	names := 0
	for l := bytes.NewReader(list); l.Len() > 0; {
		typ, _ := l.ReadByte()
		name, err := slowVec(l, 2)
		if err != nil || len(name) == 0 || len(name) > 255 {
			return errSlow
		}
		if typ != 0 {
			continue
		}
		if names++; names > 1 || !regexp.MustCompile(`^[\x21-\x7e]+$`).Match(name) {
			return errSlow
		}
		h.sni = strings.ToLower(string(name))
	}
	return nil
}

func slowProtocols(h *hello, r *bytes.Reader) error {
	list, err := slowVec(r, 2)
	if err != nil || r.Len() != 0 || len(list) == 0 {
		return errSlow
	}
	for l := bytes.NewReader(list); l.Len() > 0; {
		p, err := slowVec(l, 1)
		if err != nil || len(p) == 0 {
			return errSlow
		}
		h.alpn = append(h.alpn, string(p))
	}
	if len(h.alpn) > maxALPN {
		return errSlow
	}
	return nil
}

// FuzzInspectHTTP: once the inspector has decided, more bytes do not change its mind, and a
// whole request line is HTTP exactly if a regular expression says so.
func FuzzInspectHTTP(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte(http2Preface + "more"))
	f.Add([]byte("*1\r\n$4\r\nPING\r\n"))
	f.Add([]byte("\r\n\r\nPRIX / HTTP/1.0\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		decided, verdict := false, ""
		for n := range len(b) + 1 {
			got, more := inspectHTTP(b[:n])
			if more && got != "" {
				t.Fatalf("%q and asks for more", got)
			}
			if more && n > maxRequestLine+8 {
				t.Fatalf("asks for more after %d bytes", n)
			}
			if decided && (more || got != verdict) {
				t.Fatalf("after %d bytes %q, before %q", n, got, verdict)
			}
			if !more {
				decided, verdict = true, got
			}
		}
		if line, ok := firstLine(b); ok && len(line) < maxRequestLine {
			want := ""
			if m := requestLine.FindSubmatch(line); m != nil {
				want = "http/" + string(m[1])
			}
			if bytes.HasPrefix(trimEmpty(b), []byte(http2Preface)) {
				want = "h2c"
			}
			if !decided && !bytes.HasPrefix([]byte(http2Preface), trimEmpty(b)) || decided && verdict != want {
				t.Fatalf("decided %t: %q, the line %q says %q", decided, verdict, line, want)
			}
		}
	})
}

var requestLine = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} (?:(?:[^\\x00-\\x1f]|\r)*? )?HTTP/(1\\.[01])\r?\n$")

func trimEmpty(b []byte) []byte {
	for range 2 {
		b = bytes.TrimPrefix(b, []byte("\r\n"))
	}
	return b
}

// firstLine is the first line that is not skipped, with its end.
func firstLine(b []byte) ([]byte, bool) {
	b = trimEmpty(b)
	i := bytes.IndexByte(b, '\n')
	return b[:i+1], i >= 0
}

// FuzzProxyProtocol holds the parser to a slow reference in both directions, to itself
// (the bytes may come one by one) and to our own writer of such headers.
func FuzzProxyProtocol(f *testing.F) {
	f.Add([]byte("PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\nrest"))
	f.Add([]byte("PROXY TCP6 fd00::1 ::ffff:1.2.3.4 0 65535\r\n"))
	f.Add([]byte("PROXY UNKNOWN what ever\r\n"))
	f.Add([]byte(proxyV2Signature + "\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x0f\xa0\x00\x50"))
	f.Add([]byte(proxyV2Signature + "\x20\x00\x00\x03\x04\x00\x00rest"))
	f.Add([]byte(proxyV2Signature + "\x21\x11\x00\x13\x0a\x00\x00\x01\x0a\x00\x00\x02\x0f\xa0\x00\x50\x03\x00\x04\x00\x00\x00\x00"))
	f.Add([]byte(proxyV2Signature + "\x21\x11\x00\x10\x0a\x00\x00\x01\x0a\x00\x00\x02\x0f\xa0\x00\x50\x04\x00\x01x"))
	f.Add([]byte(proxyV2Signature + "\x21\x21\x00\x24" + strings.Repeat("\xfd\x00", 18)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, need, err := readProxy(b)
		if err != nil && !errors.Is(err, errProxy) {
			t.Fatalf("an error of its own: %v", err)
		}
		if need < 0 || need > 0 && (err != nil || need <= len(b) || need > maxProxyV2) {
			t.Fatalf("asks for %d bytes with %d there (%v)", need, len(b), err)
		}
		want, verdict := slowProxy(b)
		got := verdictOf(need, err)
		if got != verdict {
			t.Fatalf("%s (%v), the reference says %s", got, err, verdict)
		}
		if got != "taken" {
			return
		}
		if h.size != want.size || h.local != want.local || h.src != want.src || h.dst != want.dst {
			t.Fatalf("%+v, the reference reads %+v", h, want)
		}
		for n := range h.size {
			if _, need, err := readProxy(b[:n]); err != nil || need == 0 || need > h.size {
				t.Fatalf("with %d of %d bytes it asks for %d, %v", n, h.size, need, err)
			}
		}
		if !h.local {
			for version := range uint8(2) {
				again, err := transport.AppendProxyHeader(nil, version+1, h.src, h.dst)
				if err != nil {
					t.Fatal(err)
				}
				back, need, err := parseProxy(again)
				if mixed := h.src.Addr().Is4() != h.dst.Addr().Is4(); err != nil || need > 0 || back.size != len(again) || back.local != mixed || !mixed && (back.src != h.src || back.dst != h.dst) {
					t.Fatalf("%q is read as %+v (%v), written from %+v", again, back, err, h)
				}
			}
		}
	})
}

// readProxy is the parser with the check of what follows the addresses, as for a connection.
func readProxy(b []byte) (h proxyHeader, need int, err error) {
	h, need, err = parseProxy(b)
	if err == nil && need == 0 && b[0] == proxyV2Signature[0] && !h.local {
		err = checkTLVs(b[:h.size])
	}
	return h, need, err
}

var (
	proxyLine = regexp.MustCompile(`(?s)^PROXY (?:UNKNOWN(?: .*)?|(TCP[46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))\r\n$`)
	// proxyBegins: signatures of both versions.
	proxyBegins = []string{"PROXY ", proxyV2Signature}
)

// slowProxy reads a header by the specification's text (sections 2.1 and 2.2).
func slowProxy(b []byte) (h proxyHeader, verdict string) {
	begins := func(s string) bool {
		n := min(len(s), len(b))
		return s[:n] == string(b[:n])
	}
	switch {
	case !slices.ContainsFunc(proxyBegins, begins):
		return h, "malformed"
	case begins(proxyV2Signature) && len(b) > 0:
		return slowProxyV2(b)
	}
	line := b[:min(len(b), maxProxyV1)]
	if i := strings.Index(string(line), "\r\n"); i >= 0 {
		line = line[:i+2]
	} else if len(b) < maxProxyV1 {
		return h, "more"
	}
	m := proxyLine.FindSubmatch(line)
	if m == nil {
		return h, "malformed"
	}
	h.size = len(line)
	if m[1] == nil {
		h.local = true
		return h, "taken"
	}
	ends := [2]netip.AddrPort{}
	for i := range ends {
		a, err := netip.ParseAddr(string(m[2+i]))
		port, perr := strconv.Atoi(string(m[4+i]))
		if err != nil || perr != nil || port > 65535 || a.Zone() != "" || a.Is4() != (m[1][3] == '4') {
			return h, "malformed"
		}
		ends[i] = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	h.src, h.dst = ends[0], ends[1]
	return h, "taken"
}

func slowProxyV2(b []byte) (h proxyHeader, verdict string) {
	var fixed struct {
		Signature       [12]byte
		Command, Family byte
		Length          uint16
	}
	if binary.Read(bytes.NewReader(b), binary.BigEndian, &fixed) != nil {
		return h, "more"
	}
	size := 16 + int(fixed.Length)
	if size > maxProxyV2 {
		return h, "malformed"
	}
	if len(b) < size {
		return h, "more"
	}
	h.size = size
	defer func() {
		if verdict == "taken" && !h.local && !slowTLVs(b[:size], size-tlvBytes(b[:size])) {
			verdict = "malformed"
		}
	}()
	switch what := fmt.Sprintf("%02x %02x", fixed.Command, fixed.Family); {
	case fixed.Command == 0x20 || what == "21 00":
		h.local = true
		return h, "taken"
	case what == "21 11":
		var v struct {
			Src, Dst         [4]byte
			SrcPort, DstPort uint16
		}
		if binary.Read(bytes.NewReader(b[16:size]), binary.BigEndian, &v) != nil {
			return h, "malformed"
		}
		h.src, h.dst = netip.AddrPortFrom(netip.AddrFrom4(v.Src), v.SrcPort), netip.AddrPortFrom(netip.AddrFrom4(v.Dst), v.DstPort)
	case what == "21 21":
		var v struct {
			Src, Dst         [16]byte
			SrcPort, DstPort uint16
		}
		if binary.Read(bytes.NewReader(b[16:size]), binary.BigEndian, &v) != nil {
			return h, "malformed"
		}
		h.src, h.dst = netip.AddrPortFrom(netip.AddrFrom16(v.Src).Unmap(), v.SrcPort), netip.AddrPortFrom(netip.AddrFrom16(v.Dst).Unmap(), v.DstPort)
	default:
		return h, "malformed"
	}
	return h, "taken"
}

// tlvBytes is how many bytes follow the addresses.
func tlvBytes(header []byte) int {
	return len(header) - map[byte]int{0x11: 28, 0x21: 52}[header[13]]
}

// slowTLVs reads the vectors (section 2.2) and checks a checksum (2.2.4).
func slowTLVs(header []byte, at int) bool {
	for r := bytes.NewReader(header[at:]); r.Len() > 0; {
		kind, _ := r.ReadByte()
		v, err := slowVec(r, 2)
		if err != nil {
			return false
		}
		if kind == 3 {
			zeroed := bytes.Clone(header)
			if len(v) != 4 {
				return false
			}
			copy(zeroed[len(header)-r.Len()-4:], "\x00\x00\x00\x00")
			if crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(v) {
				return false
			}
		}
	}
	return true
}
