package memnet

import "time"

// DefaultBuffer is how many bytes one direction of a connection holds.
const DefaultBuffer = 64 << 10

// Link says how connections behave. The zero value is a perfect, immediate link.
// Byte counts are for each direction on its own and start with the connection; the
// methods of [Conn] inject the same faults later.
type Link struct {
	// Buffer bounds the bytes on their way in one direction: written and not yet
	// read. A writer blocks when it is full. Zero means [DefaultBuffer].
	Buffer int
	// Latency is the one-way delay of data and of the orderly end. Dialing takes two
	// of them. With latency the buffer limits throughput to Buffer per Latency.
	Latency time.Duration
	// ResetAfter resets the connection after this many bytes in one direction; the
	// bytes before are delivered. Zero means never.
	ResetAfter int64
	// StallAfter stops delivery after this many bytes in one direction, with no error,
	// as when a cable is pulled. Zero means never.
	StallAfter int64
	// Blackhole makes dialing hang until the dialer gives up, as when a firewall
	// drops packets. It has no effect on [Pipe].
	Blackhole bool
}
