package hcm

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// A WebSocket's handshake differs between the versions: over HTTP/1.1 the server proves with
// sec-websocket-accept that it understood the client's sec-websocket-key (RFC 6455 section 4), over
// HTTP/2 neither is used (RFC 8441 section 5). Whoever translates makes up for the side that lacks them. What
// came with a key is passed on with it over HTTP/2 too, as Envoy does, so that the last hop need not make one.

const (
	keyField    = "sec-websocket-key"
	acceptField = "sec-websocket-accept"
	acceptLen   = 28 // of a SHA-1 in base64
)

// handshake is what is known of the WebSocket that a request asks for.
type handshake struct {
	key []byte // nil: it asks for none, or without a key
	own bool   // key was made here, so it is on us to check the answer
}

// Replies to handshakes that the upstream did not carry out.
var (
	replyBadHandshake = filter.Reply{Status: 502, Body: []byte("the upstream's answer to the WebSocket handshake is not valid"),
		Details: "websocket_handshake_failed", Flags: stream.FlagUpstreamProtocolErr}
	replyNotSwitched = filter.Reply{Status: 502, Body: []byte("the upstream did not switch protocols"),
		Details: "upgrade_ignored_by_upstream", Flags: stream.FlagUpstreamProtocolErr}
)

// offer completes a request for a WebSocket.
func (x *exchange) offer() {
	if !stream.EqualFold(x.req.Upgrade, "websocket") {
		return
	}
	h := &x.up.shake
	if h.key = x.req.Fields.Get(keyField); h.key != nil || x.req.Proto != stream.HTTP2 {
		return
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	start := len(x.buf)
	x.buf = base64.StdEncoding.AppendEncode(x.buf, nonce[:])
	h.key, h.own = x.buf[start:len(x.buf):len(x.buf)], true
	x.req.Fields.SetBytes(keyField, h.key)
}

// accepted checks and completes the answer to a request for an upgrade. It returns what to answer instead, nil if it is good.
func (x *exchange) accepted(resp *stream.Response) *filter.Reply {
	if resp.Status != 101 {
		if x.req.Upgrade != nil && x.req.Proto == stream.HTTP2 && resp.Status/100 == 2 {
			return &replyNotSwitched // to the client any 2xx would mean that it was (RFC 8441 section 5)
		}
		return nil
	}
	h := &x.up.shake
	if h.key == nil {
		return nil
	}
	got := resp.Fields.Get(acceptField)
	switch {
	case h.own:
		if want := accept(h.key); got != nil && string(got) != string(want[:]) || got == nil && resp.Proto != stream.HTTP2 {
			return &replyBadHandshake
		}
		resp.Fields.Del(acceptField)
	case got == nil && resp.Proto == stream.HTTP2:
		want := accept(h.key)
		start := len(x.buf)
		x.buf = append(x.buf, want[:]...)
		resp.Fields.SetBytes(acceptField, x.buf[start:len(x.buf):len(x.buf)])
	}
	return nil
}

// accept is the proof that belongs to a key (RFC 6455 section 4.2.2).
func accept(key []byte) (out [acceptLen]byte) {
	h := sha1.New() // what the protocol says; it guards no secret
	_, _ = h.Write(key)
	_, _ = h.Write([]byte("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	base64.StdEncoding.Encode(out[:], h.Sum(nil))
	return out
}
