package http2

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"

	msg "weft.mesh/weft/proxy/stream"
)

// maxUpgradeSettings bounds the settings of an upgrade, in entries. Eleven are registered.
const maxUpgradeSettings = 32

// Upgrade is a request without a body that asked over HTTP/1.1 for HTTP/2 (RFC 7540 section 3.2). It becomes
// stream 1 of the connection, which the server begins with its SETTINGS after a 101, and the client with the preface.
type Upgrade struct {
	req      msg.Request
	settings []byte
}

// NewUpgrade copies a request and takes the value of its HTTP2-Settings, which counts as the client's first
// SETTINGS. It returns nil if the value is none that a client may send.
func NewUpgrade(r *msg.Request, settings []byte) *Upgrade {
	u := &Upgrade{settings: make([]byte, base64.RawURLEncoding.DecodedLen(len(settings)))}
	if len(u.settings) > maxUpgradeSettings*6 || bytes.ContainsAny(settings, "\r\n") {
		return nil
	}
	n, err := base64.RawURLEncoding.Strict().Decode(u.settings, settings)
	if u.settings = u.settings[:n]; err != nil || !validSettings(u.settings) {
		return nil
	}
	q := &u.req
	*q = msg.Request{Proto: msg.HTTP2, Method: bytes.Clone(r.Method), Scheme: bytes.Clone(r.Scheme), Authority: bytes.Clone(r.Authority),
		Path: bytes.Clone(r.Path), TETrailers: r.TETrailers}
	for _, l := range r.Fields.All() {
		q.Fields.Append(bytes.ToLower(l.Name), bytes.Clone(l.Value))
	}
	return u
}

// validSettings tells whether p could be the payload of a client's SETTINGS (RFC 9113 section 6.5.2).
func validSettings(p []byte) bool {
	for ; len(p) >= 6; p = p[6:] {
		switch v := binary.BigEndian.Uint32(p[2:]); binary.BigEndian.Uint16(p) {
		case settingPush, settingConnect:
			if v > 1 {
				return false
			}
		case settingWindow:
			if v > maxWindow {
				return false
			}
		case settingMaxFrame:
			if v < minMaxFrame || v > maxMaxFrame {
				return false
			}
		}
	}
	return len(p) == 0
}

// adopt begins stream 1, half closed by the client. mu is held, and our SETTINGS wait to be written.
func (sc *serverConn) adopt(u *Upgrade) error {
	c := sc.conn
	for p := u.settings; len(p) > 0; p = p[6:] {
		if err := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	s := serverStreams.Get().(*serverStream)
	s.renew(c, 1)
	s.server = serverState{}
	s.req.Reset()
	fields := s.req.Fields
	s.req = u.req
	s.req.Fields = fields
	for _, l := range u.req.Fields.All() {
		s.req.Fields.Append(l.Name, l.Value)
	}
	s.inTable, s.remoteEnd = true, true
	c.streams[1] = &s.stream
	c.lastPeer = 1
	c.running++
	sc.served++
	sc.dispatch(s)
	return nil
}
