package tcp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport/exchange"
)

// alpnExchange is the protocol that begins with a metadata preamble.
const alpnExchange = "istio-peer-exchange"

// Upstreams connects to hosts of clusters.
type Upstreams interface {
	// Dial picks a host of the cluster and connects. The error is a *stream.Error.
	// Upstream is not nil also with an error if a host was picked: its Addr and Service are set then.
	Dial(ctx context.Context, cluster string, r Request) (*Upstream, error)
}

// Request is what picking a host may depend on.
type Request struct {
	Conn    *stream.ConnInfo // downstream: source address for hashing, original destination
	Hash    bool             // by source IP
	Attempt int              // 0 for the first
}

// Upstream is an established connection, or what is known of a failed one.
type Upstream struct {
	Conn     *netio.Conn
	Info     *stream.ConnInfo
	Addr     netip.AddrPort
	Service  stream.Service
	Workload *stream.Workload // of the endpoint; nil if unknown
	// Release is called once when the connection has ended; may be nil. err is the
	// failure of the upstream side, if there was one.
	Release func(err error)
}

// Deps of Serve.
type Deps struct {
	Upstreams Upstreams
	// Exchange is our metadata for chains with metadata exchange; nil: none is done.
	Exchange *exchange.Node
}

// Reasons for an end that came from us, as connection termination details.
const (
	endIdle     = "tcp_session_idle_timeout"
	endDuration = "max_connection_duration_reached"
	endCut      = "drain_deadline"
)

// Serve proxies one connection until it ends, and closes it. When ctx ends, the connection is cut.
func Serve(ctx context.Context, cfg *config.TCPProxy, c *netio.Conn, info *stream.ConnInfo, deps Deps) {
	s := &session{cfg: cfg, down: c, info: info, start: time.Now(), up: &Upstream{}, cluster: cfg.Cluster}
	s.touch()
	defer s.end()
	if len(cfg.Weighted) > 0 {
		s.cluster = pickWeighted(cfg.Weighted, cfg.Total, rand.Uint32())
	}
	wantPeer, err := s.offer(deps.Exchange)
	if err != nil {
		s.fail(downstreamFailure(err), err)
		c.Abort()
		return
	}
	if err := s.connect(ctx, deps.Upstreams); err != nil {
		c.Abort()
		return
	}
	stop := context.AfterFunc(ctx, func() { s.finish(endCut, 0) })
	defer stop()
	if !wantPeer { // else it is told with the peer's metadata, so that one connection is one series
		s.report(stream.ReportOpen)
	}
	s.arm()
	s.copyBoth(wantPeer)
}

// pickWeighted chooses by a random number.
func pickWeighted(ws []route.WeightedCluster, total, r uint32) string {
	if total == 0 {
		for i := range ws {
			total += ws[i].Weight
		}
	}
	if total == 0 {
		return ws[0].Cluster
	}
	at := r % total
	for i := range ws {
		if at < ws[i].Weight {
			return ws[i].Cluster
		}
		at -= ws[i].Weight
	}
	return ws[len(ws)-1].Cluster
}

// offer sends our metadata if the client chose to exchange. wantPeer: its own are to be read before its data.
func (s *session) offer(n *exchange.Node) (wantPeer bool, err error) {
	if !s.cfg.MetadataExchange || n == nil || s.info.ALPN != alpnExchange {
		return false, nil
	}
	if _, err := s.down.Write(n.Preamble()); err != nil {
		return false, fmt.Errorf("metadata exchange: %w", err)
	}
	return true, nil
}

// connect tries hosts until one answers or the attempts are used up.
func (s *session) connect(ctx context.Context, ups Upstreams) error {
	attempts := max(1, int(s.cfg.MaxConnectAttempts))
	for i := range attempts {
		up, err := ups.Dial(ctx, s.cluster, Request{Conn: s.info, Hash: s.cfg.Hash, Attempt: i})
		if up != nil {
			s.up = up
		}
		s.attempts++
		if err == nil {
			return nil
		}
		flags := stream.FlagUpstreamConnectFailure
		se, ok := stream.AsError(err)
		if ok {
			flags = se.Flag
		}
		last := i == attempts-1 || ctx.Err() != nil || flags != stream.FlagUpstreamConnectFailure
		if !last {
			continue
		}
		if flags == stream.FlagUpstreamConnectFailure {
			flags |= stream.FlagUpstreamRetryLimit // as Envoy, also for a single attempt
		}
		s.fail(flags, err)
		return err
	}
	return errors.New("tcp: no attempt made") // not reached: attempts is at least 1
}

func downstreamFailure(err error) stream.Flags {
	if netio.IsTimeout(err) {
		return stream.FlagDownstreamProtocolErr
	}
	return stream.FlagDownstreamTermination
}
