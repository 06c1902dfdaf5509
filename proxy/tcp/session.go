package tcp

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport"
)

// reportInterval is how often the metrics of a running connection are brought up to date (Istio's tcpReportingDuration).
const reportInterval = 15 * time.Second

// session is one proxied connection.
type session struct {
	cfg      *config.TCPProxy
	down     *netio.Conn
	info     *stream.ConnInfo
	start    time.Time
	cluster  string
	up       *Upstream // set by connect, before anything runs beside Serve
	attempts int

	in, out  atomic.Uint64 // bytes down→up and up→down
	last     atomic.Int64  // unix nanoseconds of the last byte seen
	splicing atomic.Bool

	mu sync.Mutex
	// mu protects the following.
	timer       *time.Timer
	ended       bool // nothing is armed or reported any more
	opened      bool
	flags       stream.Flags
	details     string
	termination string
	upFailure   string
	upErr       error
	peer        *stream.Workload // the client's, by metadata exchange
	sentIn      uint64           // reported so far
	sentOut     uint64
	received    uint64 // both sockets' counters when the timer last looked, while splicing
}

func (s *session) touch() { s.last.Store(time.Now().UnixNano()) }

// fail records why the connection could not be served.
func (s *session) fail(flags stream.Flags, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flags |= flags
	if se, ok := stream.AsError(err); ok {
		s.details = se.Details
		if se.Side == stream.Upstream {
			s.upErr = err
		}
	}
	if flags&stream.FlagUpstreamConnectFailure != 0 {
		s.upFailure = transport.FailureReason(err)
		s.upErr = err
	}
}

// finish ends the connection from our side, for the first reason given.
func (s *session) finish(why string, flags stream.Flags) {
	s.mu.Lock()
	if !s.ended && s.termination == "" {
		s.termination, s.flags = why, s.flags|flags
	}
	s.mu.Unlock()
	_ = s.down.Close()
	_ = s.up.Conn.Close()
}

// arm starts the one timer of the session: for reports, idleness and the maximum duration.
func (s *session) arm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = s.kernelBytes()
	if d, ok := s.next(time.Now()); ok {
		s.timer = time.AfterFunc(d, s.tick)
	}
}

// next is the time until something is to be looked at.
func (s *session) next(now time.Time) (d time.Duration, ok bool) {
	sooner := func(x time.Duration) {
		if !ok || x < d {
			d, ok = max(x, time.Millisecond), true
		}
	}
	if len(s.cfg.Ends) > 0 {
		sooner(reportInterval)
	}
	if t := s.cfg.IdleTimeout; t > 0 {
		sooner(time.Unix(0, s.last.Load()).Add(t).Sub(now))
	}
	if t := s.cfg.MaxDuration; t > 0 {
		sooner(s.start.Add(t).Sub(now))
	}
	return d, ok
}

// tick runs on the timer's goroutine.
func (s *session) tick() {
	now := time.Now()
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	if s.splicing.Load() {
		if n := s.kernelBytes(); n != s.received { // bytes move inside one splice call
			s.received = n
			s.touch()
		}
	}
	if !s.opened { // the peer has been silent for long: told without its metadata
		s.reportLocked(stream.ReportOpen)
	}
	if s.in.Load() != s.sentIn || s.out.Load() != s.sentOut {
		s.reportLocked(stream.ReportRunning)
	}
	idle := s.cfg.IdleTimeout > 0 && now.Sub(time.Unix(0, s.last.Load())) >= s.cfg.IdleTimeout
	over := s.cfg.MaxDuration > 0 && now.Sub(s.start) >= s.cfg.MaxDuration
	if !idle && !over {
		if d, ok := s.next(now); ok {
			s.timer.Reset(d)
		}
	}
	s.mu.Unlock()
	switch {
	case over:
		s.finish(endDuration, stream.FlagDurationTimeout)
	case idle:
		s.finish(endIdle, 0)
	}
}

// kernelBytes is what the kernel has received on both sockets; 0 if they are none.
func (s *session) kernelBytes() (n uint64) {
	for _, c := range []*netio.Conn{s.down, s.up.Conn} {
		t := c.Socket()
		if t == nil {
			continue
		}
		rc, err := t.SyscallConn()
		if err != nil {
			continue
		}
		_ = rc.Control(func(fd uintptr) {
			if i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				n += i.Bytes_received
			}
		})
	}
	return n
}

// report tells the metrics.
func (s *session) report(stage stream.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reportLocked(stage)
}

func (s *session) reportLocked(stage stream.Report) {
	if len(s.cfg.Ends) == 0 {
		return
	}
	if stage == stream.ReportOpen {
		s.opened = true
	}
	i := s.record()
	i.Report = stage
	if stage != stream.ReportOpen {
		i.NewIn, i.NewOut = i.BytesIn-s.sentIn, i.BytesOut-s.sentOut
		s.sentIn, s.sentOut = i.BytesIn, i.BytesOut
	}
	for _, f := range s.cfg.Ends {
		f(i)
	}
}

// record describes the connection as it is now; mu is held.
func (s *session) record() *stream.Info {
	i := &stream.Info{
		Conn: s.info, Start: s.start, Duration: time.Since(s.start), GRPCCode: -1, ServiceTime: -1,
		Cluster: s.cluster, Service: s.up.Service, Upstream: s.up.Addr, Attempts: s.attempts,
		BytesIn: s.in.Load(), BytesOut: s.out.Load(),
		Flags: s.flags, Details: s.details, Termination: s.termination, UpFailure: s.upFailure, Peer: s.peer,
	}
	if ui := s.up.Info; ui != nil {
		i.UpLocal, i.UpstreamID = ui.Local, ui.PeerID
	}
	if s.info.Direction != stream.Inbound {
		i.Peer = s.up.Workload
		if ui := s.up.Info; ui != nil && ui.Met.Peer() != nil {
			i.Peer = ui.Met.Peer()
		}
	}
	return i
}

// end closes what is open, and writes the last report and the access log.
func (s *session) end() {
	_ = s.down.Close()
	if s.up.Conn != nil {
		_ = s.up.Conn.Close()
	}
	s.mu.Lock()
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if !s.opened {
		s.reportLocked(stream.ReportOpen)
	}
	s.reportLocked(stream.ReportEnd)
	i, err := s.record(), s.upErr
	s.mu.Unlock()
	if s.up.Release != nil {
		s.up.Release(err)
	}
	for _, l := range s.cfg.AccessLogs {
		l.Log(i)
	}
}
