package telemetry

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
)

// DefaultMaxSeries bounds the label sets that are kept.
const DefaultMaxSeries = 20_000

// Clusters whose name stands for the destination service, as in Istio.
const (
	passthrough        = "PassthroughCluster"
	blackHole          = "BlackHoleCluster"
	inboundPassthrough = "InboundPassthroughCluster"
)

// IstioSettings of [Istio].
type IstioSettings struct {
	// Self is the workload this proxy belongs to.
	Self stream.Workload
	// Waypoint makes the reporter of outbound exchanges "waypoint".
	Waypoint bool
	// NoHostFallback leaves destination_service unknown where no service is known, instead of
	// taking the Host header (Istio's disable_host_header_fallback: gateways).
	NoHostFallback bool
	// MaxSeries bounds the label sets; zero: [DefaultMaxSeries].
	MaxSeries int
	// Tag is the version in istio_build.
	Tag string
}

// Istio records Istio's standard metrics.
type Istio struct {
	set      IstioSettings
	overflow *Counter

	// recent are series that were used lately. Comparing one key costs less
	// than hashing it, and takes no lock.
	recent [256]atomic.Pointer[series]

	mu sync.RWMutex
	m  map[seriesKey]*series // mu protects it; entries are never removed
}

// NewIstio registers the standard metrics.
func NewIstio(r *Registry, set IstioSettings) *Istio {
	if set.MaxSeries <= 0 {
		set.MaxSeries = DefaultMaxSeries
	}
	t := &Istio{set: set, m: map[seriesKey]*series{}}
	t.overflow = r.Counter("weft_proxy_metric_series_overflow_total", "Reports whose label set was not kept because the bound on series was reached.")
	r.GaugeFunc("weft_proxy_metric_series", "Label sets of the standard metrics that are kept.", func() float64 {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return float64(len(t.m))
	})
	r.Gauge("istio_build", "Build information of the component.", Label{"component", "proxy"}, Label{"tag", orUnknown(set.Tag)}).Set(1)
	r.Collect(t.write)
	return t
}

// protocol of a series.
type protocol uint8

const (
	protoHTTP protocol = iota
	protoGRPC
	protoTCP
)

// seriesKey is everything labels are made of, by value: comparing and hashing it allocates nothing.
type seriesKey struct {
	inbound  bool
	proto    protocol
	mtls     bool
	code     int32
	grpc     int32
	flags    stream.Flags
	cluster  string // only one of the special ones
	service  stream.Service
	peer     stream.Workload
	peerID   spiffe.ID
	localID  spiffe.ID
	selfHost string // Host header, if it stands for the service
}

// series is one label set with its counters, in copies made when first used.
type series struct {
	key    seriesKey
	proto  protocol
	labels string // as the text format has them
	cells  []atomic.Pointer[cell]
}

// cell is one copy of a series' counters.
type cell struct {
	requests          atomic.Uint64
	reqMsgs, respMsgs atomic.Uint64
	sent, received    atomic.Uint64
	opened, closed    atomic.Uint64
	duration, in, out hist
}

func (s *series) cell() *cell {
	p := &s.cells[stripe()]
	if c := p.Load(); c != nil {
		return c
	}
	c := &cell{}
	if p.CompareAndSwap(nil, c) {
		return c
	}
	return p.Load()
}

// HTTP records a finished exchange.
func (t *Istio) HTTP(i *stream.Info) {
	k := t.key(i)
	k.code = int32(i.Status)
	if i.GRPC {
		k.proto, k.grpc = protoGRPC, int32(i.GRPCCode)
	}
	s := t.series(&k, i.Peer)
	if s == nil {
		return
	}
	c := s.cell()
	c.requests.Add(1)
	c.duration.observe(uint64(max(i.Duration, 0) / time.Microsecond))
	c.in.observe(i.BytesIn * 1000)
	c.out.observe(i.BytesOut * 1000)
	if i.GRPC {
		c.reqMsgs.Add(i.ReqMsgs)
		c.respMsgs.Add(i.RespMsgs)
	}
}

// TCP records a report of a connection; what it counts depends on its stage. It has the form of config.TCPProxy.Ends.
func (t *Istio) TCP(i *stream.Info) {
	k := t.key(i)
	k.proto = protoTCP
	s := t.series(&k, i.Peer)
	if s == nil {
		return
	}
	c := s.cell()
	c.received.Add(i.NewIn)
	c.sent.Add(i.NewOut)
	switch i.Report {
	case stream.ReportOpen:
		c.opened.Add(1)
	case stream.ReportEnd:
		c.closed.Add(1)
	}
}

// key collects what the labels depend on. Its strings may alias the exchange.
func (t *Istio) key(i *stream.Info) seriesKey {
	k := seriesKey{flags: i.Flags, service: i.Service, grpc: -1}
	if i.Peer != nil {
		k.peer = *i.Peer
	}
	k.inbound = i.Conn != nil && i.Conn.Direction == stream.Inbound
	if k.inbound {
		k.peerID, k.localID, k.mtls = i.Conn.PeerID, i.Conn.LocalID, i.Conn.MutualTLS()
		if p := i.Conn.Met.Peer(); i.Peer == nil && p != nil {
			k.peer = *p
		}
	} else {
		k.peerID = i.UpstreamID
		k.mtls = !i.UpstreamID.IsZero()
	}
	k.peer.Principal = ""
	switch i.Cluster {
	case passthrough, blackHole, inboundPassthrough:
		k.cluster, k.service = i.Cluster, stream.Service{}
	}
	// Host headers of strangers are no labels: only an outbound sidecar's own application may name services.
	if i.Req != nil && k.service.Host == "" && i.Conn != nil && i.Conn.Direction == stream.Outbound && !t.set.NoHostFallback {
		k.selfHost = alias(i.Req.Authority)
	}
	return k
}

// series finds or makes the series of a label set; nil if there are too many.
func (t *Istio) series(k *seriesKey, peer *stream.Workload) *series {
	slot := &t.recent[k.slot(peer)]
	if s := slot.Load(); s != nil && s.key == *k {
		return s
	}
	s := t.lookup(k)
	if s != nil {
		slot.Store(s)
	}
	return s
}

// slot spreads keys over the recent ones by what is cheap to look at.
func (k *seriesKey) slot(peer *stream.Workload) uint8 {
	h := uint32(uintptr(unsafe.Pointer(peer))>>4) ^ uint32(k.code)*31 ^ uint32(k.flags)*7 ^ uint32(k.grpc)<<3 ^ uint32(k.proto)<<6
	h ^= uint32(len(k.service.Host))*131 ^ uint32(len(k.selfHost))*137
	if n := len(k.service.Name); n > 0 {
		h ^= uint32(k.service.Name[0])<<2 ^ uint32(k.service.Name[n-1])<<4
	}
	if k.inbound {
		h ^= 0x55
	}
	return uint8(h ^ h>>8 ^ h>>16)
}

func (t *Istio) lookup(k *seriesKey) *series {
	t.mu.RLock()
	s := t.m[*k]
	t.mu.RUnlock()
	if s != nil {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s = t.m[*k]; s != nil {
		return s
	}
	if len(t.m) >= t.set.MaxSeries {
		t.overflow.Inc()
		return nil
	}
	s = &series{key: k.clone(), proto: k.proto, cells: make([]atomic.Pointer[cell], stripes)}
	s.labels = labelText(t.labels(&s.key))
	t.m[s.key] = s
	return s
}

// clone copies the strings, which may alias a message.
func (k seriesKey) clone() seriesKey {
	for _, s := range []*string{
		&k.cluster, &k.selfHost, &k.service.Host, &k.service.Name, &k.service.Namespace,
		&k.peer.Name, &k.peer.Namespace, &k.peer.App, &k.peer.Version, &k.peer.CanonicalName, &k.peer.CanonicalRevision, &k.peer.Cluster,
	} {
		*s = strings.Clone(*s)
	}
	return k
}

// labels makes the label set in Istio's order.
func (t *Istio) labels(k *seriesKey) []Label {
	reporter, src, dst := "source", &t.set.Self, &k.peer
	srcID, dstID := k.localSource(t), k.peerID.String()
	policy := "unknown"
	if t.set.Waypoint {
		reporter = "waypoint"
	}
	if k.inbound {
		reporter, src, dst = "destination", &k.peer, &t.set.Self
		srcID, dstID = k.peerID.String(), k.localID.String()
		policy = "none"
		if k.mtls {
			policy = "mutual_tls"
		}
	}
	host, name, ns := k.destination(dst)
	l := make([]Label, 0, 25)
	add := func(n, v string) { l = append(l, Label{n, orUnknown(v)}) }
	add("reporter", reporter)
	add("source_workload", src.Name)
	add("source_canonical_service", src.CanonicalName)
	add("source_canonical_revision", src.CanonicalRevision)
	add("source_workload_namespace", src.Namespace)
	add("source_principal", srcID)
	add("source_app", src.App)
	add("source_version", src.Version)
	add("source_cluster", src.Cluster)
	add("destination_workload", dst.Name)
	add("destination_workload_namespace", dst.Namespace)
	add("destination_principal", dstID)
	add("destination_app", dst.App)
	add("destination_version", dst.Version)
	add("destination_service", host)
	add("destination_canonical_service", dst.CanonicalName)
	add("destination_canonical_revision", dst.CanonicalRevision)
	add("destination_service_name", name)
	add("destination_service_namespace", ns)
	add("destination_cluster", dst.Cluster)
	add("request_protocol", [...]string{"http", "grpc", "tcp"}[k.proto])
	if k.proto != protoTCP {
		add("response_code", strconv.Itoa(int(k.code)))
	}
	if k.proto == protoGRPC {
		status := ""
		if k.grpc >= 0 {
			status = strconv.Itoa(int(k.grpc))
		}
		add("grpc_response_status", status)
	}
	add("response_flags", k.flags.String())
	add("connection_security_policy", policy)
	return l
}

// localSource is our own principal on outbound connections with mTLS.
func (k *seriesKey) localSource(t *Istio) string {
	if !k.mtls {
		return ""
	}
	return t.set.Self.Principal
}

// destination names the service.
func (k *seriesKey) destination(dst *stream.Workload) (host, name, ns string) {
	host, name, ns = k.service.Host, k.service.Name, k.service.Namespace
	if host == "" {
		host, name = k.selfHost, k.selfHost
	}
	if k.cluster != "" {
		name = k.cluster
	}
	if ns == "" {
		ns = dst.Namespace
	}
	return host, name, ns
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
