// Package memnet is a TCP-like network in memory, for tests.
//
// A [Network] has listeners that are dialed by address, like the real network;
// [Pipe] makes one connected pair. Connections have bounded buffers, deadlines,
// half-close and real-looking addresses (*net.TCPAddr), and their errors match the
// kernel's (ECONNREFUSED, ECONNRESET, EPIPE, os.ErrDeadlineExceeded, net.ErrClosed,
// all inside a *net.OpError). A [Link] adds latency and faults.
//
// Waiting uses only condition variables, channels and timers, so everything
// works under testing/synctest, where a goroutine that is blocked on a real socket
// would stop the clock. Make networks and pipes inside the bubble that uses
// them.
//
// What differs from the kernel: a connection is no *net.TCPConn and has no
// file descriptor (no SyscallConn); a write is visible to the peer at once, there are
// no segments to merge; closing with unread data sends an orderly end, not a
// reset (use [Conn.SetLinger] with 0 or [Conn.Reset] for that); the first write after
// the peer closed already fails.
package memnet
