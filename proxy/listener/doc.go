// Package listener owns the proxy's sockets: it accepts connections, finds out where
// they were meant to go, sniffs what they speak, chooses a filter chain, terminates TLS
// and hands the connection to the HTTP or TCP server.
//
// A [Manager] reconciles its sockets with each View: new ones are bound before old ones
// close, sockets are kept by address, so a changed filter chain does not rebind.
// Connections keep the chain that they began with; those whose chain is gone are told to
// drain and are cut when the drain time is over.
//
// Everything read before a server takes over is bounded (16 KiB), nothing is
// consumed: the server reads the same bytes again. A connection that no chain
// wants, or whose sniffing or filters refuse it, is closed.
// [Manager.Run] owns all goroutines. Safe for concurrent use.
package listener
