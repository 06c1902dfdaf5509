package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// sniffer looks at the first bytes of one connection.
type sniffer struct {
	c      *netio.Conn
	timed  bool // a deadline is set
	expire bool // it passed and the listener wants to go on without
	keep   bool // continue_on_timeout
}

// sniff fills in what the listener is to find out, before a chain is chosen.
func (m *Manager) sniff(c *netio.Conn, in *config.Inspect, dir stream.Direction, f *facts, info *stream.ConnInfo) error {
	s := sniffer{c: c, keep: in.ContinueOnTimeout}
	timeout := in.Timeout
	if timeout <= 0 && (dir == stream.Gateway || in.ProxyProtocol) {
		timeout = m.set.SniffTimeout // strangers must not hold connections for ever
	}
	f.transport = transportRaw
	if !in.ProxyProtocol && !in.TLS && !in.HTTP {
		return nil
	}
	if timeout > 0 {
		s.timed = true
		if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	}
	if in.ProxyProtocol {
		if err := s.proxy(in, f, info); err != nil || s.expire {
			return err
		}
	}
	port := f.local.Port()
	if in.TLS && !inRanges(in.NoTLS, port) {
		if err := s.tls(f, info); err != nil || s.expire {
			return err
		}
	}
	if in.HTTP && f.transport == transportRaw && !inRanges(in.NoHTTP, port) {
		return s.http(f)
	}
	return nil
}

func inRanges(r []config.PortRange, port uint16) bool {
	return slices.ContainsFunc(r, func(p config.PortRange) bool {
		return port >= p.Start && port < p.End
	})
}

// peek waits for n bytes. ok is false if sniffing ends without an answer: time is up and the listener goes on, or the client ended its side.
func (s *sniffer) peek(n int) (b []byte, ok bool, err error) {
	b, err = s.c.Peek(n)
	switch {
	case err == nil:
		return b, true, nil
	case s.timed && netio.IsTimeout(err):
		if s.keep {
			s.expire = true
			return b, false, nil
		}
		return b, false, errSniffTimeout
	case len(b) > 0 && !netio.IsReset(err):
		return b, false, nil // sent something and half-closed
	}
	return b, false, err
}

var errSniffTimeout = errors.New("listener filter timeout")

// proxy takes the PROXY header off the connection. It must be there, unless the
// listener also serves connections without; then a version that is disallowed is none.
func (s *sniffer) proxy(in *config.Inspect, f *facts, info *stream.ConnInfo) error {
	v, err := s.proxyVersion(in)
	if err != nil || v == 0 {
		return err
	}
	for need := 1; ; {
		b, ok, err := s.peek(need)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: cut off", errProxy)
		}
		h, more, err := parseProxy(b)
		if err != nil {
			return err
		}
		if more > 0 {
			need = more
			continue
		}
		if v == 2 && !h.local {
			if err := checkTLVs(b[:h.size]); err != nil {
				return err
			}
		}
		var scratch [256]byte
		for skip := h.size; skip > 0; {
			n, err := s.c.Read(scratch[:min(skip, len(scratch))])
			if err != nil {
				return err
			}
			skip -= n
		}
		if !h.local {
			info.Direct = info.Remote
			info.Remote, f.remote = h.src, h.src
			info.Local, f.local = h.dst, h.dst
		}
		return nil
	}
}

// proxyVersion waits until it is clear which header begins; 0: none, and none is needed.
func (s *sniffer) proxyVersion(in *config.Inspect) (uint8, error) {
	for need := 1; ; {
		b, ok, err := s.peek(need)
		if err != nil {
			return 0, err
		}
		v, more := proxyVersion(b)
		if ok && more > 0 {
			need = more
			continue
		}
		if v == 1 && in.ProxyNoV1 || v == 2 && in.ProxyNoV2 {
			if !in.ProxyOptional {
				return 0, fmt.Errorf("%w: version %d is not allowed here", errProxy, v)
			}
			v = 0
		}
		if v == 0 && !in.ProxyOptional {
			s.expire = false // going on without what the header would say is not an option
			return 0, fmt.Errorf("%w: begins with neither version", errProxy)
		}
		return v, nil
	}
}

func (s *sniffer) tls(f *facts, info *stream.ConnInfo) error {
	for need := 1; ; {
		b, ok, err := s.peek(need)
		if err != nil || !ok {
			return err
		}
		h, more, err := parseHello(b)
		switch {
		case errors.Is(err, errNotTLS):
			return nil
		case err != nil:
			return err
		case more > len(b):
			need = more
			continue
		}
		f.transport, f.sni, f.alpn = transportTLS, h.sni, h.alpn
		info.SNI = h.sni
		return nil
	}
}

func (s *sniffer) http(f *facts) error {
	for need := 1; ; {
		b, ok, err := s.peek(need)
		if err != nil || !ok {
			return err
		}
		alpn, more := inspectHTTP(b)
		if more && len(b) < netio.BufferSize {
			need = len(b) + 1
			continue
		}
		if alpn != "" {
			f.alpn = []string{alpn}
		}
		return nil
	}
}

// unmapped makes an address comparable: IPv4 in IPv6 form becomes IPv4.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
