// Package tcp is the TCP proxy: it connects a downstream connection to an upstream
// host and copies bytes both ways until both sides have ended.
//
// The end of one direction is passed on as such (half-close) and a reset as a
// reset, so that neither peer takes a cut for the end of the data. Small messages
// go through pooled buffers, which an idle connection does not hold; once more
// than 64 KiB went one way and both sides are plain sockets, the kernel moves the bytes
// (splice). Nothing is buffered beyond one buffer for each direction: a slow reader slows the writer.
//
// It picks no hosts and knows no load balancing: that is behind [Upstreams].
// [Serve] returns when both directions have ended; it starts one goroutine.
package tcp
