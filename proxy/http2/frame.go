package http2

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

type frameType uint8

const (
	frameData frameType = iota
	frameHeaders
	framePriority
	frameRST
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	settingTableSize   = 1
	settingPush        = 2
	settingMaxStreams  = 3
	settingWindow      = 4
	settingMaxFrame    = 5
	settingMaxHeaders  = 6
	settingConnect     = 8 // RFC 8441
	frameHeader        = 9
	minMaxFrame        = 16 << 10
	maxMaxFrame        = 1<<24 - 1
	maxWindow          = 1<<31 - 1
	initialWindow      = 65535
	maxStreamID        = 1<<31 - 1
	defaultPeerStreams = 100 // until the peer's SETTINGS say otherwise
)

// code is an error code of RFC 9113 section 7.
type code uint32

const (
	codeNo code = iota
	codeProtocol
	codeInternal
	codeFlowControl
	codeSettingsTimeout
	codeStreamClosed
	codeFrameSize
	codeRefused
	codeCancel
	codeCompression
	codeConnect
	codeCalm
	codeSecurity
	codeHTTP11
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}

func (c code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("error code %d", uint32(c))
}

// connError ends the connection with GOAWAY.
type connError struct {
	code code
	why  string
}

func (e *connError) Error() string { return e.code.String() + ": " + e.why }

// resetError is a stream that was reset, by the peer or by us.
type resetError struct {
	code code
	by   string // "peer" or why we did it
}

func (e *resetError) Error() string { return "stream reset (" + e.by + "): " + e.code.String() }

func connErr(c code, why string) error { return &connError{c, why} }

// header is the head of a frame.
type header struct {
	len    int
	typ    frameType
	flags  uint8
	stream uint32
}

func (h header) has(flag uint8) bool { return h.flags&flag != 0 }

func parseHeader(b []byte) header {
	return header{
		len:    int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		typ:    frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & maxStreamID,
	}
}

func appendHeader(b []byte, n int, t frameType, flags uint8, id uint32) []byte {
	return append(b, byte(n>>16), byte(n>>8), byte(n), byte(t), flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendRST(b []byte, id uint32, c code) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, 4, frameRST, 0, id), uint32(c))
}

func appendWindow(b []byte, id uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, 4, frameWindow, 0, id), uint32(n))
}

func appendGoAway(b []byte, last uint32, c code, why string) []byte {
	b = appendHeader(b, 8+len(why), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(c))
	return append(b, why...)
}

func appendPing(b []byte, ack bool, data []byte) []byte {
	var flags uint8
	if ack {
		flags = flagAck
	}
	return append(appendHeader(b, 8, framePing, flags, 0), data...)
}

func appendSetting(b []byte, id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), v)
}

func stringBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
