package server

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/proxy/admin"
	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter/http/peermeta"
	"weft.mesh/weft/proxy/filterset"
	"weft.mesh/weft/proxy/hcm"
	"weft.mesh/weft/proxy/http1"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/listener"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/overload"
	"weft.mesh/weft/proxy/tcp"
	"weft.mesh/weft/proxy/telemetry"
	"weft.mesh/weft/proxy/transport"
	"weft.mesh/weft/proxy/transport/exchange"
	"weft.mesh/weft/proxy/upstream"
	"weft.mesh/weft/proxy/xdsclient"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// Server is one proxy. Make it with [New], run it once.
type Server struct {
	set       Settings
	started   time.Time
	live      *config.Live
	identity  *identity.Source
	conf      *configurator
	xds       *xdsclient.Client
	upstreams *upstream.Manager
	listeners *listener.Manager
	servers   *servers
	sweeper   *hcm.Sweeper
	logs      *telemetry.AccessLogs
	registry  *telemetry.Registry
	admin     *admin.Server
	memory    *memory
	lot       *netio.Lot
	overload  *overload.Manager
	names     *names // nil: nobody answers DNS queries

	hot      hot
	draining atomic.Bool
	quit     chan struct{} // closed by Quit
	quitOnce sync.Once
}

// New checks the settings and builds a proxy. Only the admin interfaces' sockets are opened.
func New(set Settings) (*Server, error) {
	if err := set.complete(); err != nil {
		return nil, err
	}
	s := &Server{set: set, started: time.Now(), live: &config.Live{}, registry: telemetry.NewRegistry(), sweeper: hcm.NewSweeper(),
		memory: newMemory(), quit: make(chan struct{})}
	s.hot.begin(s.started)
	if s.set.Mark != 0 && !canMark(s.set.Mark) {
		set.Log.Warn("sockets cannot be marked (CAP_NET_ADMIN is missing): capture must exclude this proxy by its user ID")
		s.set.Mark = 0
	}
	if set.StateDir != "" {
		if err := os.MkdirAll(set.StateDir, 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	for _, step := range []func() error{s.meetParent, s.makeIdentity, s.makeDataPath, s.makeConfiguration, s.makeAdmin} {
		if err := step(); err != nil {
			s.hot.leave()
			return nil, err
		}
	}
	s.register()
	return s, nil
}

func (s *Server) makeIdentity() error {
	if s.set.Identity != nil {
		s.identity = s.set.Identity
		return nil
	}
	id, err := s.set.spiffeID()
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	is := identity.Settings{ID: id, Log: s.set.Log}
	if s.set.StateDir != "" {
		is.Dir = filepath.Join(s.set.StateDir, "identity")
	}
	roots, err := s.controlRoots()
	if err != nil {
		return fmt.Errorf("root certificates of the control plane: %w", err)
	}
	is.CA = &identity.CA{Address: s.set.XDS, RootsNow: roots, Token: s.set.Token, ClusterID: s.set.Cluster, Dial: s.dialControl}
	s.identity, err = identity.New(is)
	return err
}

func (s *Server) makeDataPath() error {
	self := s.set.self()
	node, err := exchange.NewNode(s.set.nodeID(), &self)
	if err != nil {
		return err
	}
	d := transport.NewDialer(transport.DialSettings{Identity: s.identity, Mark: s.set.Mark, Exchange: node})
	s.upstreams = upstream.NewManager(upstream.Settings{Dialer: dialer{d}, Resolver: s.resolver()})
	s.makeOverload()
	if s.lot, err = netio.NewLot(); err != nil {
		return err
	}
	s.memory.parked = s.lot.Parks
	s.servers = &servers{
		deps:     hcm.Deps{Live: s.live, Upstreams: s.upstreams, Sweeper: s.sweeper, Lot: s.lot, Admission: s.overload, DrainTime: s.hot.drainTime, DrainIdle: s.drainIdle},
		tcp:      tcp.Deps{Upstreams: upstreams{s.upstreams, maphash.MakeSeed()}, Exchange: node},
		managers: map[managerKey]*hcm.Manager{},
	}
	s.listeners = listener.New(listener.Settings{
		HTTP: s.servers, TCP: s.servers, Lot: s.lot, DrainIdle: s.sleepersDrainIdle, Inherited: s.set.Inherited, AcceptWhileDraining: true, MinDrain: s.set.MinDrain,
		AllowDirect: s.set.AllowDirect, Log: s.set.Log, MaxConnections: s.maxConnections(), Refuse: s.overload.Refuse, Listen: s.listen(),
		TLS: transport.NewServer(transport.ServerSettings{Identity: s.identity, Secret: func(name string) *config.Secret { return s.live.View().Secrets[name] }}),
	})
	return nil
}

func (s *Server) makeConfiguration() error {
	self := s.set.self()
	gateway := s.set.Role == xds.Router
	s.logs = telemetry.NewAccessLogs(s.registry, s.set.Log)
	istio := telemetry.NewIstio(s.registry, telemetry.IstioSettings{Self: self, NoHostFallback: gateway, Tag: version.Get().Version})
	deps := filterset.Deps{Istio: istio, Self: peermeta.Node{ID: s.set.nodeID(), Workload: &self}, NoHostFallback: gateway}
	read := s.set.ReadFile
	if read == nil {
		read = readFile
	}
	s.conf = newConfigurator(compile.New(compile.Settings{
		HTTPFilters: filterset.HTTP(deps), NetworkFilters: filterset.Network(deps), AccessLog: s.accessLog, ReadFile: read, Gateway: gateway,
	}), s.live, s.set.Log)
	s.conf.clusters = s.upstreams.Apply
	s.conf.listeners = s.applyListeners
	s.conf.settled = s.memory.changed
	creds := s.set.Credentials
	if creds == nil {
		creds = s.identity.TransportCredentials()
	}
	var sink xdsclient.Sink = s.conf
	if s.set.Names != nil {
		s.names = &names{Sink: s.conf, server: s.set.Names, address: s.set.NamesAddress}
		sink = s.names
	}
	var err error
	s.xds, err = xdsclient.New(xdsclient.Settings{
		Address: s.set.XDS, Node: s.set.node(), Credentials: creds, Dial: s.dialControl, Sink: sink, Names: s.names != nil, File: s.set.lastGood(), Log: s.set.Log,
	})
	return err
}

// accessLog adapts the compiler's description to telemetry's.
func (s *Server) accessLog(l compile.AccessLog) (*config.AccessLog, error) {
	c := telemetry.AccessLogConfig{Name: l.Name, Path: l.Path, Text: l.Text, OmitEmpty: l.OmitEmpty}
	if l.JSON != nil {
		c.JSON = l.JSON.AsMap()
	}
	if s.set.AccessLogFile != "" && l.Path == "/dev/stdout" {
		c.Path = s.set.AccessLogFile
	}
	return s.logs.NewAccessLog(c)
}

func (s *Server) applyListeners(v *config.View) error {
	err := s.listeners.Apply(v)
	s.servers.retain(v)
	return err
}

// Quit asks Run to end as if its context had.
func (s *Server) Quit() { s.quitOnce.Do(func() { close(s.quit) }) }

// drainIdle is how long an idle connection that is told to end waits for a request: with the whole proxy until peers
// had time to stop sending, but not at all when only its listener's configuration was replaced, by a
// stricter policy perhaps.
func (s *Server) drainIdle() time.Duration {
	if s.draining.Load() || s.hot.drainTime() > 0 {
		return http1.DefaultDrainIdle
	}
	return 0
}

// sleepersDrainIdle is the same for who sleeps, with the time that a hot restart gives to all.
func (s *Server) sleepersDrainIdle() time.Duration { return max(s.drainIdle(), s.hot.drainTime()) }

// Drain makes the proxy unready and tells all connections to end; it returns at
// once. New connections are still served until Run ends.
func (s *Server) drain() {
	if s.draining.Swap(true) {
		return
	}
	s.set.Log.Info("draining", "connections", s.listeners.Active())
}

// Addrs lists the addresses of the admin interfaces: admin, status, ready, metrics, without those not served.
func (s *Server) Addrs() []net.Addr { return s.admin.Addrs() }

// Listening lists the bound addresses of listeners by name.
func (s *Server) Listening() map[string]netip.AddrPort {
	out := map[string]netip.AddrPort{}
	for _, l := range s.live.View().Listeners {
		if l.BindToPort {
			out[l.Name] = l.Address
		}
	}
	return out
}

// Ready tells whether the proxy serves, and why not.
func (s *Server) Ready() (bool, string) {
	if s.draining.Load() {
		return false, "draining"
	}
	if _, err := s.identity.Current(); err != nil {
		return false, err.Error()
	}
	if ok, why := s.conf.ready(); !ok {
		return false, why
	}
	return s.names.ready()
}

// state is Envoy's word for where we are.
func (s *Server) state() string {
	if s.draining.Load() {
		return "DRAINING"
	}
	if ok, _ := s.Ready(); ok {
		return "LIVE"
	}
	return "INITIALIZING"
}

// Run serves until ctx ends or Quit is called, then drains and stops. It
// returns after every goroutine has, with the first failure if there was one.
func (s *Server) Run(ctx context.Context) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	defer s.logs.Flush() // what the last connections wrote
	defer wg.Wait()
	defer stop()
	control, stopControl := context.WithCancel(run) // what another process does instead after a hot restart
	defer stopControl()
	failed := make(chan error, 16)
	start := func(ctx context.Context, name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	reserveDescriptors()
	fromDisk := s.xds.Load()
	start(run, "upstreams", s.upstreams.Run)
	start(run, "sweeper", s.sweeper.Run)
	start(run, "access logs", s.logs.Run)
	start(run, "memory", s.memory.run)
	start(run, "overload", s.overload.Run)
	start(control, "configuration", func(ctx context.Context) error { s.conf.run(ctx); return nil })
	start(run, "parked connections", s.lot.Run)
	if s.set.Identity == nil {
		start(control, "identity", s.identity.Run)
	}
	start(control, "xds", s.runXDS)
	if s.names != nil {
		start(control, "names", s.names.run)
	}
	if err := s.awaitReady(ctx, failed); err != nil {
		return err
	}
	start(control, "admin", s.admin.Run)
	start(run, "listeners", s.listeners.Run)
	start(control, "hot restart", s.hotRestart)
	if s.set.Serving != nil {
		start(control, "serving", s.tellServing)
	}
	s.set.Log.Info("proxy started", "node", s.set.nodeID(), "version", version.Get().Version, "last_good", fromDisk, "restart_epoch", s.hot.lineage.Epoch)
	var err error
	select {
	case <-ctx.Done():
	case <-s.quit:
	case t := <-s.hot.handed:
		stopControl()
		s.endAsParent(ctx, run, t)
		return nil
	case err = <-failed:
		s.set.Log.Error("proxy fails", "cause", err)
	}
	s.end(run)
	return err
}

// runXDS waits for an identity to authenticate with and then keeps a stream open.
func (s *Server) runXDS(ctx context.Context) error {
	if s.set.Credentials == nil {
		if err := s.identity.WaitReady(ctx); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
	return s.xds.Run(ctx)
}

// end drains: connections end after what runs on them, at the latest after Settings.Drain.
func (s *Server) end(run context.Context) {
	s.drain()
	ctx, cancel := context.WithTimeoutCause(run, s.set.Drain, errors.New("drain time is over"))
	defer cancel()
	began := time.Now()
	err := s.listeners.Drain(ctx)
	s.set.Log.Info("drained", "after", time.Since(began).Round(time.Millisecond), "cause", err)
}

func (s *Server) makeAdmin() error {
	var err error
	var table func() map[string]nds.Info
	if s.names != nil {
		table = s.names.shown
	}
	s.admin, err = admin.New(admin.Settings{
		Admin: s.set.Admin, Status: s.set.Status, Ready: s.set.Ready, Metrics: s.set.Metrics,
		Resources: s.conf.resources, Refused: s.conf.refusals, View: s.live.View, Clusters: s.upstreams.Snapshot,
		Listeners: s.listenerList, Identity: s.identity, Registry: s.registry, Names: table, Info: s.info, Healthy: s.Ready, State: s.state,
		Level: s.set.Level, Drain: s.drainNow, Quit: s.Quit, Arrived: s.arrived, AppMetrics: s.set.AppMetrics, AppProbes: s.set.AppProbes, AppIP: s.set.IP, Log: s.set.Log, Listen: s.listenAdmin(),
	})
	return err
}

// drainNow is the admin interface's drain: connections are told to end, the process stays.
func (s *Server) drainNow() {
	s.drain()
	s.listeners.StartDrain()
}

func (s *Server) listenerList() []admin.Listener {
	v := s.live.View()
	out := make([]admin.Listener, 0, len(v.Listeners))
	for _, l := range v.Listeners {
		out = append(out, admin.Listener{Name: l.Name, Address: l.Address, Bound: l.BindToPort})
	}
	slices.SortFunc(out, func(a, b admin.Listener) int { return a.Address.Compare(b.Address) })
	return out
}

func (s *Server) info() admin.Info {
	i := admin.Info{Version: version.Get().Version, NodeID: s.set.nodeID(), Cluster: s.set.node().GetCluster(), Role: string(s.set.Role), Started: s.started,
		Node: s.set.node(), ControlPlane: s.set.XDS,
		Epoch: s.hot.lineage.Epoch, FirstStarted: s.hot.lineage.Started, HotRestart: s.hotRestartVersion()}
	st := s.xds.Status()
	i.Config = map[string]any{"address": s.set.XDS, "connected": st.Connected, "since": st.Since, "streams": st.Streams, "updates": st.Updates,
		"nacks": st.NACKs, "last_nack": st.LastNACK, "last_error": st.LastError, "from_disk": st.FromDisk}
	return i
}
