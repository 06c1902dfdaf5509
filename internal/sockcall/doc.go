// Package sockcall makes system calls on sockets that do not block, without telling the scheduler of them: they return at once,
// and what the scheduler does around a system call, and the runtime's monitor when many of them take more than 20 µs, costs as much as
// a small one. At most [Most] bytes go in one call, since the thread cannot be stopped in it.
//
// The caller keeps the descriptor from being closed meanwhile.
package sockcall

// Most is what one call should read or write: 64 KiB take about 10 µs.
const Most = 64 << 10
