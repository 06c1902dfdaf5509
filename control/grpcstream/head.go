package grpcstream

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Bounds of what a call begins with.
const (
	maxHeaderList  = 16 << 10 // as SETTINGS_MAX_HEADER_LIST_SIZE counts
	maxHeaderBlock = 32 << 10 // encoded, with its continuations
	tableSize      = 4 << 10  // HPACK's default
)

// head is what matters of the first block of a stream.
type head struct {
	method, path, contentType string
	encoding                  string // of what the client sends
	gzip                      bool   // it takes gzip
	timeout                   time.Duration
	badTimeout                bool
	size                      int
}

// readHead decodes a block. The decoder keeps what the block adds to its table.
func readHead(d *hpack.Decoder, block []byte) (head, error) {
	var h head
	d.SetEmitFunc(func(f hpack.HeaderField) { h.field(f) })
	defer d.SetEmitFunc(func(hpack.HeaderField) {})
	if _, err := d.Write(block); err != nil {
		return h, fatal(codeCompression, "the header block cannot be read")
	}
	if err := d.Close(); err != nil {
		return h, fatal(codeCompression, "the header block is cut off")
	}
	if h.size > maxHeaderList {
		return h, fatal(codeCalm, "too many headers")
	}
	return h, nil
}

func newDecoder() *hpack.Decoder {
	d := hpack.NewDecoder(tableSize, nil)
	d.SetMaxStringLength(maxHeaderList)
	return d
}

func (h *head) field(f hpack.HeaderField) {
	h.size += int(f.Size())
	switch f.Name {
	case ":method":
		h.method = f.Value
	case ":path":
		h.path = f.Value
	case "content-type":
		h.contentType = f.Value
	case "grpc-encoding":
		h.encoding = f.Value
	case "grpc-accept-encoding":
		for v := range strings.SplitSeq(f.Value, ",") {
			h.gzip = h.gzip || strings.TrimSpace(v) == "gzip"
		}
	case "grpc-timeout":
		var ok bool
		h.timeout, ok = parseTimeout(f.Value)
		h.badTimeout = !ok
	}
}

// refusal is why a call cannot be served.
func (h *head) refusal() error {
	switch {
	case h.method != "POST" || h.contentType != "application/grpc" && !strings.HasPrefix(h.contentType, "application/grpc+") && !strings.HasPrefix(h.contentType, "application/grpc;"):
		return status.Errorf(codes.Internal, "%s with content-type %q: want POST with application/grpc", h.method, h.contentType)
	case h.badTimeout:
		return status.Error(codes.Internal, "malformed grpc-timeout")
	case h.encoding != "" && h.encoding != "identity" && h.encoding != "gzip":
		return status.Errorf(codes.Unimplemented, "grpc-encoding %q: want identity or gzip", h.encoding)
	}
	return nil
}

// parseTimeout reads grpc-timeout: up to eight digits and a unit.
func parseTimeout(v string) (time.Duration, bool) {
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	unit, ok := units[v[len(v)-1]]
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if !ok || err != nil {
		return 0, false
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return max(time.Duration(n)*unit, time.Nanosecond), true
}

// literal appends a field that no table keeps.
func literal(b []byte, name, value string) []byte {
	b = append(b, 0)
	b = appendString(b, name)
	return appendString(b, value)
}

// appendString is an HPACK string without Huffman coding (RFC 7541 section 5.2).
func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(append(b, byte(n)), s...)
}

const statusOK = 0x88 // :status 200 of the static table

// appendResponse is the head of an answer.
func appendResponse(b []byte, stream uint32, gzip bool) []byte {
	block := append(make([]byte, 0, 128), statusOK)
	block = literal(block, "content-type", "application/grpc")
	block = literal(block, "grpc-accept-encoding", "gzip")
	if gzip {
		block = literal(block, "grpc-encoding", "gzip")
	}
	return append(appendHead(b, len(block), frameHeaders, flagEndHeaders, stream), block...)
}

// maxStatus bounds the text of an error.
const maxStatus = 4 << 10

// appendTrailers ends an answer, one without a head too.
func appendTrailers(b []byte, stream uint32, alone bool, err error) []byte {
	st := status.Convert(err)
	var block []byte
	if alone {
		block = literal(append(block, statusOK), "content-type", "application/grpc")
	}
	block = literal(block, "grpc-status", strconv.Itoa(int(st.Code())))
	if m := st.Message(); m != "" {
		block = literal(block, "grpc-message", percent(m[:min(len(m), maxStatus)]))
	}
	return append(appendHead(b, len(block), frameHeaders, flagEndHeaders|flagEndStream, stream), block...)
}

// percent is a text as grpc-message has it.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
