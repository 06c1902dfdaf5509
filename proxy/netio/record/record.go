package record

import "crypto/tls"

// Sizes of a record (RFC 8446 section 5), in bytes.
const (
	HeaderLen = 5
	MaxPlain  = 1 << 14
	// Overhead is what a record has more than its plaintext: the header, the content's type and the tag.
	Overhead = HeaderLen + 1 + tagLen
	// MaxLen is the longest record that is read: peers may pad.
	MaxLen = HeaderLen + MaxPlain + 256

	tagLen = 16
)

// Content types.
const (
	TypeAlert     = 21
	TypeHandshake = 22
	TypeData      = 23
)

// Alerts that this side sends (RFC 8446 section 6).
const (
	AlertCloseNotify       tls.AlertError = 0
	AlertUnexpectedMessage tls.AlertError = 10
	AlertBadRecordMAC      tls.AlertError = 20
	AlertRecordOverflow    tls.AlertError = 22
	AlertDecodeError       tls.AlertError = 50
	AlertInternalError     tls.AlertError = 80
	AlertUserCanceled      tls.AlertError = 90
)

// Len is the length of the record that p begins with; 0: p is too short to tell. The error is the alert to send.
func Len(p []byte) (int, error) {
	if len(p) < HeaderLen {
		return 0, nil
	}
	if p[0] != TypeData { // all is protected after the handshake
		return 0, AlertUnexpectedMessage
	}
	n := HeaderLen + int(p[3])<<8 + int(p[4])
	switch {
	case n > MaxLen:
		return 0, AlertRecordOverflow
	case n < Overhead:
		return 0, AlertDecodeError
	}
	return n, nil
}

// Seal protects what stands in rec behind HeaderLen bytes, at most MaxPlain, and returns the record, which
// begins where rec does. There must be room for Overhead-HeaderLen bytes more.
func (h *Half) Seal(rec []byte, typ byte) []byte {
	rec = append(rec, typ)
	n := len(rec) - HeaderLen + tagLen
	rec[0], rec[1], rec[2], rec[3], rec[4] = TypeData, 3, 3, byte(n>>8), byte(n)
	return rec[:HeaderLen+len(h.aead.Seal(rec[HeaderLen:HeaderLen], h.next(), rec[HeaderLen:], rec[:HeaderLen]))]
}

// Fits tells whether Open can put the content of a record of so many bytes into dst.
func Fits(size int, dst []byte) bool { return len(dst) >= size-HeaderLen-tagLen }

// Open checks a whole record and returns its content: in dst, if that has room for the record without its header and tag, else in rec.
// The error is the alert to send.
func (h *Half) Open(dst, rec []byte) (typ byte, content []byte, err error) {
	to := rec[HeaderLen:HeaderLen]
	if Fits(len(rec), dst) {
		to = dst[:0]
	}
	content, err = h.aead.Open(to, h.next(), rec[HeaderLen:], rec[:HeaderLen])
	if err != nil {
		return 0, nil, AlertBadRecordMAC
	}
	end := len(content)
	for end > 0 && content[end-1] == 0 { // padding
		end--
	}
	if end == 0 {
		return 0, nil, AlertUnexpectedMessage
	}
	typ, content = content[end-1], content[:end-1]
	if len(content) > MaxPlain {
		return 0, nil, AlertRecordOverflow
	}
	return typ, content, nil
}

// maxBefore bounds what After tries. crypto/tls' servers send one ticket at most.
const maxBefore = 4

// After goes on behind rec, if that was sealed with the key that h begins with, by somebody else and as one of the first
// records; else it changes nothing: no number may be used twice.
func (h *Half) After(rec []byte) {
	if n, err := Len(rec); err != nil || n == 0 || n != len(rec) {
		return
	}
	probe, room := *h, make([]byte, 0, len(rec))
	for range maxBefore {
		if _, err := probe.aead.Open(room, probe.next(), rec[HeaderLen:], rec[:HeaderLen]); err == nil {
			h.seq = probe.seq
			return
		}
	}
}
