package netio

import (
	"crypto/tls"
	"errors"
)

// session is TLS on a connection, once the handshake is done.
type session interface {
	// read reads once without waiting, as raw.try: only if there is a socket.
	read(fd uintptr, p []byte) (int, error)
	// write writes the parts whole, in as few records as possible.
	write(head, body, tail []byte) (int, error)
	// closeWrite sends close_notify.
	closeWrite() error
	// close sends close_notify if that does not have to wait, and closes what is below.
	close() error
	// ahead tells whether bytes may lie between the socket and the reader, so that waiting for the socket would not be right.
	ahead() bool
}

var (
	_ session = (*library)(nil)
	_ session = (*records)(nil)
)

// secured makes a session fit for an atomic pointer.
type secured struct{ session }

// library is a session that crypto/tls does: see newSession.
type library struct {
	*tls.Conn
	s *shim
}

func (l *library) read(fd uintptr, p []byte) (int, error) {
	l.s.fd = fd
	n, err := l.Conn.Read(p)
	l.s.fd = noFD
	if n > 0 {
		return n, nil // crypto/tls repeats a lasting error
	}
	if err == nil || errors.Is(err, errWouldBlock) {
		return 0, errWouldBlock
	}
	return 0, err
}

func (l *library) write(head, body, tail []byte) (int, error) {
	if len(head)+len(tail) == 0 {
		return l.Conn.Write(body)
	}
	return writeCopied(l.Conn, head, body, tail)
}

func (l *library) closeWrite() error { return l.CloseWrite() }

func (l *library) close() error {
	l.s.closing.Store(true)
	_ = l.Conn.Close() // closes what is below; not being able to say goodbye is no error
	return nil
}

func (l *library) ahead() bool { return l.s.pre.Len() > 0 }
