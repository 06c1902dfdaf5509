// Package http2 is the HTTP/2 codec of the proxy: both sides of a connection as
// [stream.Server] and [stream.Client] (RFC 9113, RFC 7541, RFC 8441).
//
// It has its own frame loop. One goroutine reads a connection, and runs on its own stack what becomes possible
// by what it reads (see turn): the handler of a request that has come whole, and the rest of an exchange whose
// response has, if the handler awaits it ([stream.Awaiter]). So a unary call wakes no goroutine but the two
// readers. A handler that has to wait passes the right to read on, and one whose request has
// not come whole runs on a worker. Frames are appended to one buffer for each connection, which leaves when the reader has
// used up its input, so that the frames of several streams share system calls; nobody but
// a goroutine made for it waits for a peer that does not read. Received bodies wait in memory, bounded by the
// flow-control windows, which open again only as bodies are consumed, and grow for peers far away (see window.go).
//
// HPACK is done with tables of our own that keep their bytes in memory that is
// reused, so that fields that differ in each request cost no allocation; the Huffman coding
// is golang.org/x/net/http2/hpack's, which also is the oracle of the tests.
//
// It is strict: whatever RFC 9113 calls malformed resets the stream, whatever it
// calls a connection error ends the connection with the RFC's code, and
// floods of frames that cost the sender nothing end it with ENHANCE_YOUR_CALM.
//
// An upgrade of HTTP/1.1 and an extended CONNECT look the same to the proxy:
// a GET with [stream.Request].Upgrade set, answered by 101.
//
// Not supported: server push (refused, as the RFC asks), priorities (ignored),
// upgrade from HTTP/1.1 (h2c is spoken by prior knowledge only).
package http2
