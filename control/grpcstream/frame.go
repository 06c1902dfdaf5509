package grpcstream

import (
	"encoding/binary"
	"fmt"
)

// Frame types and flags (RFC 9113 section 6).
const (
	frameData, frameHeaders, framePriority, frameReset, frameSettings     = 0, 1, 2, 3, 4
	framePush, framePing, frameGoAway, frameWindowUpdate, frameContinuing = 5, 6, 7, 8, 9

	flagEndStream, flagAck = 1, 1
	flagEndHeaders         = 4
	flagPadded             = 8
	flagPriority           = 32
)

// Error codes (RFC 9113 section 7).
const (
	codeNone, codeProtocol, codeInternal, codeFlowControl = 0, 1, 2, 3
	codeClosed, codeFrameSize, codeRefused, codeCancel    = 5, 6, 7, 8
	codeCompression, codeCalm                             = 9, 11
)

const (
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeader = 9
	maxFrame    = 16 << 10 // what we take, and what every peer takes
	// maxChunk of a message fits into a TLS record together with the head of its frame.
	maxChunk = maxFrame - frameHeader
	// plainWindow is the flow-control window of a connection, and what that of a stream is before it is said otherwise.
	plainWindow = 65_535
	// waitWindow is that of a stream which nobody has taken yet.
	waitWindow = 4 << 10
	maxWindow  = 1<<31 - 1
)

// connError ends a connection with GOAWAY.
type connError struct {
	code uint32
	why  string
}

// Error implements error.
func (e *connError) Error() string { return fmt.Sprintf("http2: %s (code %d)", e.why, e.code) }

func fatal(code uint32, why string) error { return &connError{code, why} }

// frame is one frame; its payload is valid until the next is read.
type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

// cutFrame takes a frame from the beginning of b; size is 0 if it is not whole, and want how long it is, if that is known.
func cutFrame(b []byte) (f frame, size, want int, err error) {
	if len(b) < frameHeader {
		return f, 0, frameHeader, nil
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if n > maxFrame {
		return f, 0, 0, fatal(codeFrameSize, "a frame is too large")
	}
	if want = frameHeader + n; len(b) < want {
		return f, 0, want, nil
	}
	f = frame{b[3], b[4], binary.BigEndian.Uint32(b[5:]) & maxWindow, b[frameHeader:want]}
	return f, want, want, nil
}

// unpadded is the payload without padding.
func (f *frame) unpadded() ([]byte, error) {
	b := f.payload
	if f.flags&flagPadded == 0 {
		return b, nil
	}
	if len(b) == 0 || int(b[0]) >= len(b) {
		return nil, fatal(codeProtocol, "padding is longer than its frame")
	}
	return b[1 : len(b)-int(b[0])], nil
}

// block is the header block fragment of HEADERS.
func (f *frame) block() ([]byte, error) {
	b, err := f.unpadded()
	if err == nil && f.flags&flagPriority != 0 {
		if len(b) < 5 {
			return nil, fatal(codeFrameSize, "HEADERS are shorter than their priority")
		}
		b = b[5:]
	}
	return b, err
}

func appendHead(b []byte, n int, kind, flags byte, stream uint32) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendSetting(b []byte, id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), v)
}

func appendWindowUpdate(b []byte, stream, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, frameWindowUpdate, 0, stream), n)
}

func appendReset(b []byte, stream, code uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, frameReset, 0, stream), code)
}

func appendGoAway(b []byte, last, code uint32, why string) []byte {
	b = appendHead(b, 8+len(why), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, last), code)
	return append(b, why...)
}

// Settings that matter here (RFC 9113 section 6.5.2).
const (
	setMaxStreams, setInitialWindow, setMaxHeaderList = 3, 4, 6
)

// appendHello is the settings that a connection begins with.
func appendHello(b []byte, maxStreams int) []byte {
	b = appendHead(b, 3*6, frameSettings, 0, 0)
	b = appendSetting(b, setMaxStreams, uint32(maxStreams))
	b = appendSetting(b, setInitialWindow, waitWindow)
	return appendSetting(b, setMaxHeaderList, maxHeaderList)
}
