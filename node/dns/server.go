package dns

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of the server.
const (
	maxQuery    = 4096 // bytes; queries are small
	maxMessage  = 65535
	maxForwards = 256              // queries being asked upstream; more are refused
	maxConns    = 128              // TCP connections; more are closed at once
	tcpIdle     = 10 * time.Second // RFC 7766 section 6.2.3: an idle connection is closed
	askTimeout  = 2 * time.Second  // for each upstream, unless Server.Timeout says otherwise
)

// Run serves queries until ctx ends, then closes both sockets and returns nil.
func (s *Server) Run(ctx context.Context, pc net.PacketConn, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() {
		pc.Close()
		ln.Close()
	})
	defer stop()
	wg.Go(func() { cancel(s.serveUDP(ctx, pc)) })
	wg.Go(func() { cancel(s.serveTCP(ctx, ln)) })
	<-ctx.Done()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("dns: serve %s: %w", pc.LocalAddr(), err)
	}
	return nil
}

func (s *Server) serveUDP(ctx context.Context, pc net.PacketConn) error {
	slots := make(chan struct{}, maxForwards)
	var wg sync.WaitGroup
	defer wg.Wait()
	buf := make([]byte, maxQuery)
	for {
		n, from, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			continue // an ICMP error of an earlier answer
		}
		reply, known := s.answer(buf[:n], 0, addrOf(from))
		if known || len(s.Upstreams) == 0 {
			if reply != nil {
				pc.WriteTo(reply, from) // a lost answer is asked for again
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			continue // the client asks again
		}
		msg := append([]byte(nil), buf[:n]...)
		wg.Go(func() {
			defer func() { <-slots }()
			if reply := s.forward(ctx, "udp", msg, reply); reply != nil {
				pc.WriteTo(reply, from)
			}
		})
	}
}

// addrOf is a client's address; invalid if it has none.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

func (s *Server) serveTCP(ctx context.Context, ln net.Listener) error {
	slots := make(chan struct{}, maxConns)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			if c != nil {
				c.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors: let some close
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s.serveConn(ctx, c)
		})
	}
}

func (s *Server) serveConn(ctx context.Context, c net.Conn) {
	for {
		c.SetDeadline(time.Now().Add(tcpIdle))
		msg, err := readFrame(c, maxQuery)
		if err != nil {
			return
		}
		reply, known := s.answer(msg, maxMessage, addrOf(c.RemoteAddr()))
		if !known && len(s.Upstreams) > 0 {
			reply = s.forward(ctx, "tcp", msg, reply)
			c.SetDeadline(time.Now().Add(tcpIdle))
		}
		if reply == nil || writeFrame(c, reply) != nil {
			return
		}
	}
}

// forward is what an upstream says to msg. If none answers it is our own reply, that the name does not exist, which makes a resolver
// walk on through its search list; where the table is not all there is, that cannot be known, and it is a failure.
func (s *Server) forward(ctx context.Context, network string, msg, own []byte) []byte {
	start := time.Now()
	reply := s.ask(ctx, network, msg)
	s.counts.forward(time.Since(start), reply != nil)
	if reply != nil {
		return reply
	}
	if s.Partial {
		return failure(msg)
	}
	return own
}

// ask forwards msg to the upstreams in order and returns the first reply that
// belongs to it, or nil.
func (s *Server) ask(ctx context.Context, network string, msg []byte) []byte {
	limit := cmp.Or(s.Timeout, askTimeout)
	for _, up := range s.Upstreams {
		if reply, err := askOne(ctx, limit, network, up, msg); err == nil {
			return reply
		}
	}
	return nil
}

// buffers take a reply over UDP, which may have any size that the client named.
var buffers = sync.Pool{New: func() any { return new([maxMessage]byte) }}

func askOne(ctx context.Context, limit time.Duration, network string, up netip.AddrPort, msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, up.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })() // the server ends
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if network == "tcp" {
		if err := writeFrame(c, msg); err != nil {
			return nil, err
		}
		reply, err := readFrame(c, maxMessage)
		if err == nil && !sameID(reply, msg) {
			err = errors.New("dns: upstream answered another query")
		}
		return reply, err
	}
	if _, err := c.Write(msg); err != nil {
		return nil, err
	}
	buf := buffers.Get().(*[maxMessage]byte)
	defer buffers.Put(buf)
	for {
		n, err := c.Read(buf[:])
		if err != nil {
			return nil, err
		}
		if sameID(buf[:n], msg) {
			return bytes.Clone(buf[:n]), nil
		}
	}
}

func sameID(reply, msg []byte) bool {
	return len(reply) >= 12 && len(msg) >= 12 && reply[0] == msg[0] && reply[1] == msg[1]
}

// readFrame reads one message of at most limit bytes (RFC 1035 section 4.2.2).
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > limit {
		return nil, fmt.Errorf("dns: message of %d bytes: at most %d are taken", n, limit)
	}
	msg := make([]byte, n)
	_, err := io.ReadFull(r, msg)
	return msg, err
}

func writeFrame(w io.Writer, msg []byte) error {
	if len(msg) > maxMessage {
		return fmt.Errorf("dns: message of %d bytes does not fit a frame", len(msg))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}
