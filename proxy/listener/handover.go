package listener

import (
	"net/netip"
	"syscall"
)

// Socket is the open socket that a configured address has, for a process that takes over from this
// one; nil: there is none. Inherited sockets are not among them: whoever made them knows them.
func (m *Manager) Socket(addr netip.AddrPort) syscall.Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sockets[addr]
	if s == nil || s.closed.Load() {
		return nil
	}
	c, _ := s.own.(syscall.Conn) // nil where only an inherited one serves, and in tests in memory
	return c
}

// HandOver stops accepting for good: another process has copies of the sockets, and what waits in them is
// its own. Connections go on; [Manager.Drain] ends them. What accept has already returned is served.
func (m *Manager) HandOver() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handed = true
	m.closeSockets()
}

func (m *Manager) handedOver() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.handed
}
