// Package netio is how the proxy reads and writes connected byte streams.
//
// On TCP it makes the system calls itself, without telling Go's scheduler
// (syscall.RawSyscall on non-blocking sockets), and waits in Go's poller through
// [syscall.RawConn]. A read tries first and parks only when nothing is there,
// both inside one RawConn.Read, so that readiness is never lost. Buffers are
// pooled and held only while they have something in them: a connection that
// waits costs no buffer. Handshakes of TLS are crypto/tls', over a shim; the records of TLS 1.3 after it are ours (docs/adr/0012).
// Where they stay with crypto/tls, the shim reports "would block" as a temporary error, which keeps that promise there too.
//
// Connections that are no *net.TCPConn (tests in memory) take a plain path
// with the same behaviour, except that they hold a buffer while they wait.
//
// One goroutine may read while another writes; Close, Abort, Gone and the
// deadlines may be called from anywhere. The package starts no goroutine,
// except one for each channel given to [OnClose] for as long as it is watched.
package netio
