package grpcstream

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// Others is the listener of the gRPC server that has all other calls. Its credentials must be [Credentials].
type Others struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

// NewOthers makes a listener that says it has an address.
func NewOthers(addr net.Addr) *Others {
	return &Others{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (o *Others) give(c net.Conn) bool {
	select {
	case o.conns <- c:
		return true
	case <-o.done:
		return false
	}
}

// Accept implements net.Listener.
func (o *Others) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (o *Others) Close() error {
	o.once.Do(func() { close(o.done) })
	return nil
}

// Addr implements net.Listener.
func (o *Others) Addr() net.Addr { return o.addr }

// handed is a connection that was begun here: what was read of it is read again.
type handed struct {
	net.Conn
	before []byte
	info   credentials.AuthInfo // nil: plaintext
}

// Read implements net.Conn.
func (h *handed) Read(b []byte) (int, error) {
	if len(h.before) == 0 {
		return h.Conn.Read(b)
	}
	n := copy(b, h.before)
	if h.before = h.before[n:]; len(h.before) == 0 {
		h.before = nil
	}
	return n, nil
}

// Credentials are those of connections that come from [Others]: TLS is there already.
func Credentials() credentials.TransportCredentials { return given{} }

type given struct{}

var errServerOnly = errors.New("grpcstream: these credentials are for servers")

func (given) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errServerOnly
}

func (given) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	h, ok := c.(*handed)
	if !ok || h.info == nil {
		return nil, nil, errors.New("grpcstream: a connection without TLS")
	}
	return c, h.info, nil
}

func (given) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (given) Clone() credentials.TransportCredentials { return given{} }
func (given) OverrideServerName(string) error         { return errServerOnly }
