// Package http1 is the HTTP/1.1 codec of the proxy: both sides of a connection
// as [stream.Server] and [stream.Client] (RFC 9110, RFC 9112).
//
// It is strict, because whatever two parsers understand differently lets requests be smuggled:
// no line folding, no bare CR or LF, no space before a colon, no message with both
// content-length and transfer-encoding, no second content-length, no transfer coding but
// "chunked", exactly one Host. What it writes is checked as well: no field can carry a
// line break to the wire.
//
// Heads are parsed in place: the fields of a message alias the connection's
// buffer. In the steady state an exchange allocates nothing, costs one read and one
// write on each side, and a connection that waits for its next request
// holds no buffer.
//
// Not supported, and refused or dropped: pipelined execution (pipelined
// requests are served one after the other), transfer codings other than chunked.
// An upgrade to h2c is the owner's to take ([ServerOptions].H2C); otherwise it is
// ignored, as the RFC allows, and never passed on.
package http1
