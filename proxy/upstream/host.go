package upstream

import (
	"net/netip"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream/outlier"
)

// Host is one endpoint at run time. It lives as long as its address and
// connection settings stay in the cluster.
type Host struct {
	cluster *Cluster                        // set at creation
	tls     *config.UpstreamTLS             // set at creation; nil: plaintext
	ep      atomic.Pointer[config.Endpoint] // current settings
	outlier outlier.Host
	proxy   uint8 // version of the PROXY header that connections begin with; 0: none; set at creation
	pool    pool
	origins origins      // pools instead of that one, with a PROXY header
	used    atomic.Int64 // seconds; when an original destination was last picked

	Stats HostStats
}

// HostStats counts what happened on one endpoint (names as in Envoy's /clusters).
type HostStats struct {
	CxTotal, CxConnectFail, RqTotal, RqSuccess, RqError, RqTimeout atomic.Uint64
	CxActive, RqActive                                             atomic.Int64
}

// Addr is the endpoint's address.
func (h *Host) Addr() netip.AddrPort { return h.ep.Load().Addr }

// Endpoint is the endpoint as configured now.
func (h *Host) Endpoint() *config.Endpoint { return h.ep.Load() }

// Workload is what is known of the workload behind the endpoint; may be nil.
func (h *Host) Workload() *stream.Workload { return h.ep.Load().Workload }

// TLS is the settings of connections to this endpoint; nil: plaintext.
func (h *Host) TLS() *config.UpstreamTLS { return h.tls }

// Ejected tells whether outlier detection took the endpoint out.
func (h *Host) Ejected() bool { return h.outlier.Ejected() }

// Cluster the endpoint belongs to.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Report takes the outcome of an exchange or a connection into account.
func (h *Host) Report(r outlier.Result) {
	switch {
	case r.Timeout:
		h.Stats.RqTimeout.Add(1)
		h.Stats.RqError.Add(1)
	case r.Local || r.Status >= 500:
		h.Stats.RqError.Add(1)
	default:
		h.Stats.RqSuccess.Add(1)
	}
	d := h.cluster.detector.Load()
	if d == nil {
		return
	}
	if d.Report(&h.outlier, r, time.Now()) {
		h.cluster.rebuild()
	}
}

// Closed tells that a connection made by [Cluster.Dial] has ended. It must be called exactly once for each.
func (h *Host) Closed() {
	h.Stats.CxActive.Add(-1)
	h.cluster.conns.Add(-1)
}

func (h *Host) healthy() bool {
	return h.ep.Load().Health == config.Healthy && !h.outlier.Ejected()
}
