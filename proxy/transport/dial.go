package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
	"unique"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport/exchange"
	"weft.mesh/weft/spiffe"
)

// DefaultConnectTimeout bounds connecting and the handshake together when the target says nothing (Envoy's is 5 s, Istio sets 10 s).
const DefaultConnectTimeout = 10 * time.Second

// DialSettings of a [Dialer].
type DialSettings struct {
	// Identity is needed for mTLS between workloads; may be nil.
	Identity *identity.Source
	// Mark is set on every socket (SO_MARK), so that capture lets it pass; 0: none.
	Mark int
	// Exchange is our own metadata for TCP metadata exchange; nil: none is done.
	Exchange *exchange.Node
	// Connect replaces the kernel's connect, for tests in memory; nil: real sockets.
	Connect func(ctx context.Context, source netip.Addr, to netip.AddrPort) (net.Conn, error)
}

// Dialer opens connections to upstream hosts.
type Dialer struct {
	set   DialSettings
	cache tlsCache
}

// NewDialer makes a dialer.
func NewDialer(set DialSettings) *Dialer { return &Dialer{set: set} }

// Target is where to connect and how.
type Target struct {
	Addr netip.AddrPort
	// Source is the local address to bind to (127.0.0.6 for inbound); zero: the kernel chooses.
	Source netip.Addr
	// TLS originates TLS; nil: plaintext.
	TLS *config.UpstreamTLS
	// SNI and ALPN replace those of TLS if not empty.
	SNI  string
	ALPN []string
	// Expect, if set, is the only identity accepted, beside the SAN conditions of TLS.
	Expect spiffe.ID
	// Timeout bounds connecting, handshake and metadata exchange; zero: [DefaultConnectTimeout].
	Timeout time.Duration
	// Keepalive of the socket; nil: the kernel's defaults apply, without probes.
	Keepalive *config.TCPKeepalive
	// MetadataExchange is done if the peer chose ALPN istio-peer-exchange.
	MetadataExchange bool
	// ProxyProtocol is the version of the PROXY header to send before anything else; 0: none.
	ProxyProtocol uint8
	// From and To are the addresses in that header.
	From, To netip.AddrPort
}

// Dial connects. Errors are *stream.Error: side upstream, nothing sent.
func (d *Dialer) Dial(ctx context.Context, t Target) (*netio.Conn, *stream.ConnInfo, error) {
	timeout := t.Timeout
	if timeout <= 0 {
		timeout = DefaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var cfg *tls.Config
	if t.TLS != nil {
		var err error
		if cfg, err = d.clientConfig(t.TLS, t.SNI, t.ALPN, t.Expect); err != nil {
			return nil, nil, dialError("tls", t.Addr, err)
		}
	}
	nc, err := d.connect(ctx, &t)
	if err != nil {
		return nil, nil, dialError("connect", t.Addr, err)
	}
	c := netio.New(nc)
	info := &stream.ConnInfo{Remote: t.Addr, Local: addrPort(c.LocalAddr())}
	if err := d.establish(ctx, c, info, cfg, &t); err != nil {
		_ = c.Close()
		return nil, nil, dialError("handshake", t.Addr, err)
	}
	return c, info, nil
}

// establish sends the PROXY header, does the handshake and exchanges metadata.
func (d *Dialer) establish(ctx context.Context, c *netio.Conn, info *stream.ConnInfo, cfg *tls.Config, t *Target) error {
	if t.ProxyProtocol != 0 {
		h, err := AppendProxyHeader(nil, t.ProxyProtocol, t.From, t.To)
		if err != nil {
			return err
		}
		if _, err := c.Write(h); err != nil {
			return err
		}
	}
	if cfg == nil {
		return nil
	}
	if err := c.StartTLSClient(ctx, cfg); err != nil {
		return err
	}
	d.describe(c, info, t)
	if t.MetadataExchange && d.set.Exchange != nil && info.ALPN == ALPNPeerExchange {
		return d.exchange(ctx, c, info)
	}
	return nil
}

// describe fills in what the handshake showed.
func (d *Dialer) describe(c *netio.Conn, info *stream.ConnInfo, t *Target) {
	cs := c.TLSState()
	info.TLS, info.SNI, info.ALPN = true, cs.ServerName, cs.NegotiatedProtocol
	if len(cs.PeerCertificates) > 0 {
		if id, err := spiffe.FromCertificate(cs.PeerCertificates[0]); err == nil && t.TLS.Workload {
			info.PeerID, info.Met = id, new(stream.Meeting)
		}
	}
	if t.TLS.Workload {
		info.LocalID = d.set.Identity.ID()
	}
}

// exchange writes our metadata and reads the peer's, which answers at once because ours are its first bytes.
func (d *Dialer) exchange(ctx context.Context, c *netio.Conn, info *stream.ConnInfo) error {
	if dl, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(dl)
		defer func() { _ = c.SetDeadline(time.Time{}) }()
	}
	if _, err := c.Write(d.set.Exchange.Preamble()); err != nil {
		return fmt.Errorf("metadata exchange: %w", err)
	}
	w, err := exchange.Read(c)
	if err != nil {
		return fmt.Errorf("metadata exchange: %w", err)
	}
	if w != nil {
		info.Met.Remember(w, unique.Handle[string]{})
	}
	return nil
}

func (d *Dialer) connect(ctx context.Context, t *Target) (net.Conn, error) {
	if d.set.Connect != nil {
		return d.set.Connect(ctx, t.Source, t.Addr)
	}
	nd := net.Dialer{KeepAlive: -1, Control: d.control(t.Source.IsValid())}
	if k := t.Keepalive; k != nil {
		nd.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: k.Time, Interval: k.Interval, Count: int(k.Probes)}
	}
	if t.Source.IsValid() {
		nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.Source, 0))
	}
	return nd.DialContext(ctx, "tcp", t.Addr.String())
}

// control sets socket options before connect. IP_BIND_ADDRESS_NO_PORT lets the
// kernel choose the source port at connect, so that 127.0.0.6 has 64k ports for each destination instead of in all.
func (d *Dialer) control(bound bool) func(network, address string, rc syscall.RawConn) error {
	if d.set.Mark == 0 && !bound {
		return nil
	}
	return func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			if d.set.Mark != 0 {
				if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, d.set.Mark); err != nil {
					err = fmt.Errorf("set socket mark %#x (needs CAP_NET_ADMIN): %w", d.set.Mark, err)
					return
				}
			}
			if bound {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // only saves ports
			}
		})
		return errors.Join(cerr, err)
	}
}

// MarkedDial returns a dial function for clients of the control plane whose sockets carry the mark.
func (d *Dialer) MarkedDial() func(ctx context.Context, address string) (net.Conn, error) {
	nd := &net.Dialer{Control: d.control(false)}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return nd.DialContext(ctx, "tcp", address)
	}
}

func dialError(op string, addr netip.AddrPort, err error) *stream.Error {
	timeout := netio.IsTimeout(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	details := "upstream_reset_before_response_started{connection_failure}"
	if timeout {
		details = "upstream_reset_before_response_started{connection_timeout}"
	} else if r := FailureReason(err); r != "" {
		details = "upstream_reset_before_response_started{remote_connection_failure|" + r + "}"
	}
	return &stream.Error{
		Side: stream.Upstream, Op: op, Flag: stream.FlagUpstreamConnectFailure, Details: details,
		Timeout: timeout, Unsent: true, Reset: netio.IsReset(err), Err: fmt.Errorf("%s: %w", addr, err),
	}
}

// FailureReason is the text of %UPSTREAM_TRANSPORT_FAILURE_REASON% for an error of Dial: Envoy's
// words where it has some. It has no spaces, as Envoy logs it. Empty for nil and plain timeouts.
func FailureReason(err error) string {
	var errno syscall.Errno
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &record):
		return "TLS_error:_WRONG_VERSION_NUMBER"
	case errors.As(err, &alert):
		return "TLS_error:_" + under(alert.Error())
	case errors.As(err, &errno):
		return "delayed_connect_error:_" + errnoText(errno)
	case errors.Is(err, context.DeadlineExceeded), netio.IsTimeout(err):
		return ""
	}
	var se *stream.Error
	if errors.As(err, &se) && se.Err != nil {
		err = se.Err
		if u := errors.Unwrap(err); u != nil { // drop the address: it has a field of its own
			err = u
		}
	}
	return "TLS_error:_" + under(err.Error())
}

// errnoText is strerror's text, as Envoy logs it: capitalised.
func errnoText(e syscall.Errno) string {
	s := e.Error()
	return under(strings.ToUpper(s[:1]) + s[1:])
}

func under(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), " ", "_") }

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
